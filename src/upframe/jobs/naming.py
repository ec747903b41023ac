"""Rules for the input files of a job and the names of its outputs. No pixels are read.

Names: beside the input an output is `{stem}_{model}_x{scale}{ext}`; in another folder, or if the input is a folder, it keeps
the input's name. Two inputs with one output name (`a.png` and `a.jpg` as PNG, or `A.png` and `a.png` on a disk that ignores
case) never overwrite each other: the later output keeps its input's extension, `a.jpg.png`.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import itertools
import logging
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from upframe.errors import InputError, Notice, OptionError, UsageError
from upframe.jobs.options import check_template
from upframe.media.image.files import is_image_name, iter_files, natural_key
from upframe.media.image.formats import FORMATS, UNSUPPORTED, foreign_format, format_of_name
from upframe.media.names import is_video_name

_LOG = logging.getLogger(__name__)

NAME_BYTES = 255  # bytes of one path component, on every common file system


@dataclass(frozen=True)
class Found:
    """One input file."""

    path: Path
    relative: Path
    """Path below the folder that the user named; the bare name for a file that the user named."""
    from_folder: Path | None
    """The folder that the user named, if the file was found in one."""
    error: InputError | None = None
    """An error found while listing: an empty folder, a pattern that matches nothing."""


def is_folder(path: Path) -> bool:
    """Whether there is a folder; unlike `Path.is_dir`, also for names that are too long for any."""
    return os.path.isdir(path)  # noqa: PTH112


def find_inputs(
    inputs: Iterable[str | Path],
    *,
    output: Path | None,
    recursive: bool,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    is_clip: Callable[[Path], bool] = lambda folder: False,
) -> list[Found]:
    """List the files that `inputs` (files, folders, glob patterns) mean, each once, in natural order within a folder.

    If `output` lies inside an input folder, its files are skipped: they are results, not inputs. A folder or pattern without
    images becomes an input with an error, so that it does not stop the others.

    Args:
        include, exclude: Globs on names, or on paths below a folder.
        is_clip: Whether a folder is one input: a clip, whose frames lie in it.

    Raises:
        InputError: if `inputs` is empty, or the only input is a folder or pattern without images.
        UsageError: if the output is an input folder, or the name of an input is empty.
    """
    found: list[Found] = []
    for given in inputs:
        if given == "":  # as a path it would be the current folder, with all that lies in it
            raise UsageError(
                "inputs", "one of them is an empty name", "name files or folders, or write ./ for the current folder"
            )
        path = Path(given)
        try:
            if is_folder(path) and is_clip(path):
                found.append(Found(path, Path(path.resolve().name), None))
            else:
                found += _meant_by(path, output, recursive, include, exclude)
        except InputError as error:
            found.append(Found(path, Path(path.name), None, error))
    if not found:
        raise InputError("inputs", "none is given", "name files or folders")
    if len(found) == 1 and found[0].error is not None:
        raise found[0].error
    once: dict[Path, Found] = {}
    for one in found:
        # By name and not by inode: the user asks for a hard or symbolic link under its own name.
        once.setdefault(Path(os.path.abspath(one.path)), one)  # noqa: PTH100 (resolve would follow the link)
    return list(once.values())


def _meant_by(given: Path, output: Path | None, recursive: bool, include: Sequence[str], exclude: Sequence[str]) -> list[Found]:
    if is_folder(given):
        return _in_folder(given, output, recursive, include, exclude)
    if os.path.lexists(given) or not glob.has_magic(str(given)):
        named = [given]
    else:
        named = sorted((Path(p) for p in glob.glob(str(given), recursive=True)), key=lambda p: natural_key(str(p)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if not named:
            raise InputError(str(given), "no file matches", "check the pattern")
    found: list[Found] = []
    for path in named:
        if path != given and is_folder(path):
            found += _in_folder(path, output, recursive, include, exclude) if recursive else []
        elif (not include or _matches(path, include)) and not _matches(path, exclude):
            found.append(Found(path, Path(path.name), None))
    if not found:
        raise InputError(
            str(given), "the filters leave no images", "check `include` and `exclude`, or use `recursive` for folders"
        )
    return found


def _matches(path: Path, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path.name, pattern) for pattern in globs)


def _in_folder(
    folder: Path, output: Path | None, recursive: bool, include: Sequence[str], exclude: Sequence[str]
) -> list[Found]:
    inside = output.resolve() if output is not None and is_folder(output) else None
    if inside == folder.resolve():
        raise UsageError(str(output), "is the input folder", "choose another output folder; inputs are never changed")
    foreign: list[str] = []

    def is_wanted(name: str) -> bool:
        label = foreign_format(name)
        if label is not None:
            foreign.append(f"{name} ({label})")
        return is_image_name(name) or is_video_name(name)

    files = [
        Found(p, p.relative_to(folder), folder)
        for p in iter_files(folder, recursive=recursive, include=include, exclude=exclude, is_wanted=is_wanted)
        if inside is None or inside not in p.resolve().parents
    ]
    passed = f"{', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''}"
    if not files and foreign:
        raise InputError(folder, f"no images that upframe reads in it, only {passed}", "convert them to PNG or TIFF")
    if not files:
        hint = "use `recursive` to look into its sub-folders" if not recursive else "check the folder and the filters"
        raise InputError(folder, "no images in it", hint)
    if foreign:
        _LOG.warning("%s: passed over %d files in formats that upframe does not read: %s", folder, len(foreign), passed)
    return files


def check_output(found: Sequence[Found], output: Path | None) -> None:
    """Refuse an output that cannot take these inputs.

    Raises:
        UsageError: if several inputs have one output file, or a file has the name of a folder that is needed.
    """
    if output is None:
        return
    if os.path.lexists(output) and not is_folder(output) and not names_a_file(output):
        raise UsageError(output, "exists and is neither a folder nor an image or video", "choose another output")
    several = len(found) > 1 or found[0].from_folder is not None
    if several and (os.path.isfile(output) or (not is_folder(output) and names_a_file(output))):  # noqa: PTH113
        raise UsageError(output, "is a file, and there are several inputs", "give a folder")


def names_a_file(output: Path) -> bool:
    """Whether an output that does not exist yet means a file: its extension is that of an image or a video, writable or not."""
    if not output.suffix:
        return False
    known = format_of_name(output.suffix) is not None or is_video_name(output)
    return known or output.suffix[1:].lower() in UNSUPPORTED


def _kind(extension: str) -> str | None:
    """Return one word for all spellings of a format or container."""
    return format_of_name(extension) or extension.lower().lstrip(".")


class Namer:
    """Chooses output paths, no two alike.

    Args:
        template: Template of names; None chooses names by the place of the output.
        made: Ending of new folders, as in `FOLDER_upscaled`.
        with_scale: Whether names contain the scale; False if nothing is enlarged.
    """

    def __init__(self, output: Path | None, *, template: str | None, made: str = "upscaled", with_scale: bool = True) -> None:
        self.output = output
        """The path that the user named; None for places beside the inputs."""
        self.is_file = output is not None and not is_folder(output) and names_a_file(output)
        self._template = template
        self._made = made
        self._beside = "{stem}_{model}_x{scale}" if with_scale else "{stem}_{model}"
        self._taken: set[str] = set()
        if template is not None:
            check_template(template)
            if self.is_file:
                raise OptionError("name", template, f"contradicts the output file {output}", "remove one of them")

    def wanted_format(self, asked: str | None) -> str | None:
        """The format that the option or the name of the output file states; the two must not contradict each other."""
        if not self.is_file or self.output is None:
            return asked
        if asked is not None and _kind(asked) != _kind(self.output.suffix):
            raise OptionError("format", asked, f"contradicts the output name {self.output.name}", "remove one of them")
        return self.output.suffix

    def choose(self, found: Found, extension: str, *, model: str, scale: str) -> tuple[Path, list[Notice]]:
        """Choose the output path of this input, and report changes to its name as notices.

        Args:
            extension: Extension of the format that will be written, with its dot and in the user's spelling.
        """
        folder, stem = self._place(found, model, scale)
        wanted, longer = stem + extension, stem + found.path.suffix
        others = (f"{longer}.{number}{extension}" for number in itertools.count(2))
        for name in itertools.chain((wanted, longer + extension), others):
            path = folder / _fitting(name, extension)
            if _key(path) not in self._taken:
                break
        self._taken.add(_key(path))
        notices = []
        if name != wanted:
            message = f"another input makes {wanted} too; written as {path.name}"
            notices.append(Notice("name-collision", str(found.path), message))
        if path.name != name:
            notices.append(Notice("name-shortened", str(found.path), f"the name is too long; written as {path.name}"))
        return path, notices

    def choose_folder(self, found: Found, *, model: str, scale: str) -> tuple[Path, list[Notice]]:
        """Choose the folder for the frames of this clip: the output if the user names one, else a folder beside the input."""
        if self.output is not None and is_folder(found.path):
            return self.output, []
        if self.output is None and is_folder(found.path):
            top = found.path.resolve()
            return top.with_name(f"{top.name}_{self._made}"), []
        return self.choose(found, "", model=model, scale=scale)

    def reserve(self, found: Found, asked: str | None, *, model: str, scale: str) -> None:
        """Reserve the most likely output name of an input that cannot be read now."""
        wanted, named = self.wanted_format(asked), format_of_name(found.path.suffix) if found.path.suffix else None
        is_kept = is_video_name(found.path) or (named is not None and FORMATS[named].writable)
        own = found.path.suffix if is_kept else ".png"
        self.choose(found, own if wanted is None else f".{wanted.lstrip('.')}", model=model, scale=scale)

    def _place(self, found: Found, model: str, scale: str) -> tuple[Path, str]:
        """Folder and stem of the output, without its extension."""
        if self.is_file and self.output is not None:
            return self.output.parent, self.output.stem
        template = self._template
        if self.output is not None:
            folder = self.output / found.relative.parent
            template = template or "{stem}"
        elif found.from_folder is not None:
            top = found.from_folder.resolve()
            folder = top.with_name(f"{top.name}_{self._made}") / found.relative.parent
            template = template or "{stem}"
        else:
            # A clip may be `.` or end in it: its resolved folder has the name.
            folder = found.path.resolve().parent if is_folder(found.path) else found.path.parent
            template = template or self._beside
        stem = found.path.resolve().name if is_folder(found.path) else found.path.stem
        return folder, template.format(stem=stem, model=model, scale=scale)


def _key(path: Path) -> str:
    """A key that is equal for two paths that some file system treats as one: it ignores case and Unicode normal form."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _fitting(name: str, extension: str) -> str:
    """`name`, or, if that is too long for a file system, its beginning and a hash of the whole name."""
    if len(os.fsencode(name)) <= NAME_BYTES:
        return name
    tail = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{extension}"
    stem = os.fsencode(name)[: NAME_BYTES - len(os.fsencode(tail))]
    return stem.decode("utf-8", "ignore") + tail
