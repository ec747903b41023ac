"""`upframe data`: check training data, and prepare the public sets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from upframe.cli.help import HelpPage
from upframe.cli.output import print_line, say
from upframe.cli.parser import TRAINING, Reporting, app
from upframe.cli.stopping import stoppable
from upframe.errors import UsageError, one_line

if TYPE_CHECKING:
    from upframe.datasets.prepare.items import Preparation

data_app = App(
    name="data",
    help="Check training data, and prepare the public training sets.",
    group=TRAINING,
    help_epilogue="",
    help_formatter=HelpPage(),
)
prepare_app = App(
    name="prepare",
    help="Bring a public set into the layout that recipes read. The same command again goes on where it stopped.",
)
app.command(data_app)
data_app.command(prepare_app)

PREPARING = Group.create_ordered("Preparing")
Reduction = Literal["bicubic", "bd"]


@Parameter(name="*")
@dataclass(frozen=True)
class Preparing:
    """How a set is prepared."""

    dry_run: Annotated[bool, Parameter(negative="", group=PREPARING)] = False
    "Check everything, write nothing, and say what would be made."
    partial: Annotated[bool, Parameter(negative="", group=PREPARING)] = False
    "Take what is there of a set that is not complete."
    threads: Annotated[int | None, Parameter(group=PREPARING)] = None
    "Threads that decode and encode; as many as there are cores otherwise."

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads {self.threads}", "must be 1 or more")


@data_app.command
def check(
    folder: Path,
    *,
    threads: int | None = None,
    reporting: Reporting = Reporting(),
) -> int:
    """Decode every picture, video and LMDB store in a folder, and list the bad ones.

    Args:
        folder: Folder of pictures, clips or videos, or an LMDB store.
        threads: Threads that decode; as many as there are cores otherwise.
    """
    reporting.start()
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}", "must be 1 or more")
    from upframe.datasets.prepare.checks import check_folder

    with stoppable() as cancel:
        count, bad = check_folder(folder, threads=threads, on_progress=_progress(reporting), cancel=cancel)
    if reporting.json:
        for one in bad:
            print_line(json.dumps({"event": "bad", "file": one.name, "reason": one.reason}))
        print_line(json.dumps({"event": "checked", "files": count, "bad": len(bad)}))
    else:
        for one in bad:
            print_line(f"{one_line(one.name)}: {one.reason}")
        if not reporting.quiet:
            print_line(f"{count} files, {len(bad)} bad")
    return 3 if bad else 0


@prepare_app.command(name="reds")
def prepare_reds(
    root: Path,
    *,
    lmdb: Annotated[bool, Parameter(negative="")] = False,
    preparing: Preparing = Preparing(),
    reporting: Reporting = Reporting(),
) -> int:
    """Join REDS's validation clips to its training clips as 240 to 269, and list the clips of each split.

    Args:
        root: Folder that holds train_sharp and val_sharp.
        lmdb: Also make LMDB stores.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.reds import prepare_reds

        return prepare_reds(root, lmdb=lmdb, partial_set=preparing.partial)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="vimeo90k")
def prepare_vimeo90k(
    root: Path,
    *,
    degradation: Reduction = "bicubic",
    scale: int = 4,
    part: Literal["train", "test"] = "train",
    lmdb: Literal["all", "4th"] | None = None,
    preparing: Preparing = Preparing(),
    reporting: Reporting = Reporting(),
) -> int:
    """Make the inputs of Vimeo-90K's septuplets.

    Args:
        root: Folder that holds sequences and sep_trainlist.txt.
        degradation: bicubic is MATLAB's; bd a Gaussian blur of 1.6 px and subsampling.
        scale: How much smaller the inputs are.
        part: Clips of which list.
        lmdb: Also make LMDB stores, of all true frames or of the fourth of each clip.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.vimeo90k import prepare_vimeo90k

        return prepare_vimeo90k(root, reduction=degradation, scale=scale, part=part, lmdb=lmdb, partial_set=preparing.partial)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="div2k")
def prepare_div2k(
    root: Path,
    *,
    size: int = 480,
    step: int = 240,
    scales: Annotated[list[int] | None, Parameter(negative="", consume_multiple=True)] = None,
    lmdb: Annotated[bool, Parameter(negative="")] = False,
    preparing: Preparing = Preparing(),
    reporting: Reporting = Reporting(),
) -> int:
    """Cut DIV2K and its inputs into sub-images that are quick to read.

    Args:
        root: Folder that holds DIV2K_train_HR.
        size: Side of a sub-image.
        step: Distance between neighbouring sub-images.
        scales: Of the inputs; 2, 3 and 4 otherwise.
        lmdb: Also make LMDB stores.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.div2k import SCALES, prepare_div2k
        from upframe.datasets.prepare.pictures import Cut

        wanted = tuple(scales or SCALES)
        return prepare_div2k(root, cut=Cut(size, step), lmdb=lmdb, scales=wanted, partial_set=preparing.partial)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="videolq")
def prepare_videolq(root: Path, *, preparing: Preparing = Preparing(), reporting: Reporting = Reporting()) -> int:
    """Check that VideoLQ is complete: 50 clips of up to 100 frames. Nothing has to be made.

    Args:
        root: Folder that holds the clips.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.checks import check_videolq

        return check_videolq(root, partial_set=preparing.partial)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="lq")
def prepare_lq(
    folder: Path,
    out: Path,
    *,
    scale: int = 4,
    degradation: Reduction = "bicubic",
    suffix: str = "",
    preparing: Preparing = Preparing(),
    reporting: Reporting = Reporting(),
) -> int:
    """Make reduced inputs of any pictures or clips, in the same tree.

    Args:
        folder: Folder of pictures or of clips.
        out: Folder to make.
        scale: How much smaller the inputs are.
        degradation: bicubic is MATLAB's; bd a Gaussian blur of 1.6 px and subsampling.
        suffix: Added to the names, such as x4.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.pictures import reduce_folder

        return reduce_folder(folder, out, scale=scale, reduction=degradation, suffix=suffix)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="sub-images")
def prepare_sub_images(
    folder: Path,
    out: Path,
    *,
    size: int = 480,
    step: int = 240,
    clips: Annotated[bool, Parameter(negative="")] = False,
    preparing: Preparing = Preparing(),
    reporting: Reporting = Reporting(),
) -> int:
    """Cut any pictures or clips into sub-images.

    Args:
        folder: Folder of pictures or of clips.
        out: Folder to make.
        size: Side of a sub-image.
        step: Distance between neighbouring sub-images.
        clips: Each sub-image of a clip becomes a clip: 000_s001/00000000.png.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.pictures import Cut, cut_folder

        return cut_folder(folder, out, cut=Cut(size, step), of_clips=clips)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="pans")
def prepare_pans(
    folder: Path,
    out: Path,
    *,
    frames: int = 12,
    size: int = 288,
    per_photo: int = 2,
    speed: float = 6.0,
    lively: bool = False,
    seed: int = 0,
    preparing: Preparing = Preparing(),
    reporting: Reporting = Reporting(),
) -> int:
    """Make sharp clips of a camera that moves over photographs.

    Args:
        folder: Folder of photographs.
        out: Folder to make.
        frames: Frames of each clip.
        size: Side of the frames.
        per_photo: Clips of each photograph.
        speed: Fastest motion, in pixels a frame.
        lively: Some clips also have a moving piece in front, swaying surfaces or flickering light.
        seed: Equal seeds make equal clips.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.pans import prepare_pans

        how = {"frames": frames, "size_px": size, "per_photo": per_photo}
        return prepare_pans(folder, out, **how, speed_px=speed, lively=lively, seed=seed)

    return _carry_out(plan, preparing, reporting)


@prepare_app.command(name="lmdb")
def prepare_lmdb(folder: Path, out: Path, *, preparing: Preparing = Preparing(), reporting: Reporting = Reporting()) -> int:
    """Put a folder of PNG files into an LMDB store that other frameworks read as well.

    Args:
        folder: Folder of PNG files, of clips or not.
        out: The store to make, NAME.lmdb.
    """

    def plan() -> Preparation:
        from upframe.datasets.prepare.stores import store_folder

        return store_folder(folder, out)

    return _carry_out(plan, preparing, reporting)


def _carry_out(plan: Callable[[], Preparation], preparing: Preparing, reporting: Reporting) -> int:
    reporting.start()
    from upframe.datasets.prepare.items import carry_out

    with stoppable() as cancel:
        outcome = carry_out(
            plan(), dry_run=preparing.dry_run, threads=preparing.threads, on_progress=_progress(reporting), cancel=cancel
        )
    if reporting.json:
        print_line(json.dumps({"event": "prepared", "dry_run": preparing.dry_run, **vars(outcome)}))
    elif not reporting.quiet:
        made = "files to make" if preparing.dry_run else "files made"
        room = f" (about {outcome.size_bytes / 1e9:.1f} GB)" if outcome.made else ""
        facts = ", ".join(outcome.facts)
        print_line(f"{one_line(outcome.title)}: {facts}; {outcome.made} {made}{room}, {outcome.kept} were there")
    return 0


def _progress(reporting: Reporting) -> Callable[[int, int], None] | None:
    """A line every five seconds; called from several threads."""
    if reporting.quiet or not reporting.progress:
        return None
    lock = threading.Lock()
    last = time.monotonic()

    def show(done: int, due: int) -> None:
        nonlocal last
        with lock:
            if time.monotonic() - last < 5:
                return
            last = time.monotonic()
        if reporting.json:
            print_line(json.dumps({"event": "progress", "files": done, "of": due}))
        else:
            say(f"{done} of {due} files")

    return show
