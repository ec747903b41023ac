"""Which files a job takes, and what its outputs are called and measure."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upframe.errors import InputError, UsageError
from upframe.jobs.naming import NAME_BYTES, Found, Namer, check_output, find_inputs
from upframe.upscaling.options import Target

PRIMES = [(1, 1), (1, 7), (13, 31), (97, 89), (3, 1999)]


# Sizes ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", PRIMES)
@pytest.mark.parametrize("scale", ["2", "3", "4", "2.5", "1.37", "0.5", "0.01"])
def test_scale_gives_each_side_rounded_to_the_nearest_pixel(size: tuple[int, int], scale: str) -> None:
    expected = tuple(max(int(side * Fraction(scale) + Fraction(1, 2)), 1) for side in size)
    assert Target(scale=float(scale)).size_for(size, native=4) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target(), (51, 93)),
        (Target(width=62), (34, 62)),
        (Target(height=34), (34, 62)),
        (Target(width=10, height=90), (90, 10)),
        (Target(long_side=100), (55, 100)),
        (Target(short_side=100), (100, 182)),
        (Target(megapixels=1), (741, 1350)),  # sqrt(10⁶ / (17 · 31)) = 43.5607…
    ],
)
def test_every_way_to_state_a_size(target: Target, expected: tuple[int, int]) -> None:
    assert target.size_for((17, 31), native=3) == expected


@pytest.mark.parametrize(
    ("target", "label"),
    [
        (Target(), "3"),
        (Target(scale=2.5), "2.5"),
        (Target(scale=4.0), "4"),
        (Target(width=800), "800w"),
        (Target(height=600), "600h"),
        (Target(width=800, height=600), "800x600"),
        (Target(long_side=800), "800long"),
        (Target(short_side=600), "600short"),
        (Target(megapixels=1.5), "1.5mp"),
    ],
)
def test_label_says_the_size(target: Target, label: str) -> None:
    assert target.label(3) == label


# Inputs ---------------------------------------------------------------------------------------------------------------
def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found: list[Found], top: Path) -> list[str]:
    return [one.path.relative_to(top).as_posix() for one in found]


def test_folder_is_taken_in_natural_order_and_recursively_on_wish(tmp_path: Path) -> None:
    make(tmp_path, "f10.png", "f9.png", "notes.txt", "sub/a.jpg")
    assert names(find_inputs([tmp_path], output=None, recursive=False), tmp_path) == ["f9.png", "f10.png"]
    assert names(find_inputs([tmp_path], output=None, recursive=True), tmp_path) == ["f9.png", "f10.png", "sub/a.jpg"]


def test_patterns_files_and_folders_mix_and_each_file_comes_once(tmp_path: Path) -> None:
    make(tmp_path, "f2.png", "f10.png", "g.png", "sub/h.png")
    found = find_inputs(
        [tmp_path / "g.png", f"{tmp_path}/f*.png", f"{tmp_path}/**/h.png", tmp_path, f"{tmp_path}/sub/../g.png"],
        output=None,
        recursive=False,
    )
    assert names(found, tmp_path) == ["g.png", "f2.png", "f10.png", "sub/h.png"]


def test_name_with_glob_characters_is_a_name_if_the_file_is_there(tmp_path: Path) -> None:
    make(tmp_path, "a[1].png", "a1.png")
    assert names(find_inputs([tmp_path / "a[1].png"], output=None, recursive=False), tmp_path) == ["a[1].png"]


def test_links_are_inputs_of_their_own(tmp_path: Path) -> None:
    """Each name is asked for, so each gets its output, though the pictures are the same."""
    make(tmp_path, "a.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "soft.png").symlink_to("a.png")
    assert names(find_inputs([tmp_path], output=None, recursive=False), tmp_path) == ["a.png", "hard.png", "soft.png"]


def test_filters_hold_for_folders_patterns_and_named_files(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a_x4.png", "b.jpg")
    for given_inputs in ([tmp_path], [f"{tmp_path}/*"], [tmp_path / n for n in ("a.png", "a_x4.png", "b.jpg")]):
        found = find_inputs(given_inputs, output=None, recursive=False, include=("*.png",), exclude=("*_x4.*",))
        assert [one.path.name for one in found if one.error is None] == ["a.png"]


def test_output_folder_inside_the_input_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "out/a.png", "sub/b.png")
    assert names(find_inputs([tmp_path], output=tmp_path / "out", recursive=True), tmp_path) == ["a.png", "sub/b.png"]


def test_output_that_is_the_input_folder_is_refused_also_through_a_link(tmp_path: Path) -> None:
    make(tmp_path, "in/a.png")
    (tmp_path / "link").symlink_to("in")
    for output in ("in", "link", "in/../in"):
        with pytest.raises(UsageError, match="is the input folder"):
            find_inputs([tmp_path / "in"], output=tmp_path / output, recursive=False)


def test_nothing_to_do_says_why(tmp_path: Path) -> None:
    make(tmp_path, "sub/a.png", "notes.txt")
    with pytest.raises(InputError, match=r"no images in it.*`recursive`"):
        find_inputs([tmp_path], output=None, recursive=False)
    with pytest.raises(InputError, match="no file matches"):
        find_inputs([f"{tmp_path}/*.gif"], output=None, recursive=False)
    with pytest.raises(InputError, match="`include`"):
        find_inputs([f"{tmp_path}/*.txt"], output=None, recursive=False, include=("*.png",))


def test_empty_pattern_among_others_is_an_error_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    bad, good = find_inputs([f"{tmp_path}/*.gif", tmp_path / "a.png"], output=None, recursive=False)
    assert bad.error is not None
    assert "no file matches" in str(bad.error)
    assert good == Found(tmp_path / "a.png", Path("a.png"), None)


@pytest.mark.parametrize("name", ["missing.png", "n" * 300 + ".png", "a\0b.png"])
def test_names_that_no_file_has_are_left_to_the_decoder(tmp_path: Path, name: str) -> None:
    assert [one.path for one in find_inputs([tmp_path / name], output=None, recursive=False)] == [tmp_path / name]


# Output names ---------------------------------------------------------------------------------------------------------
def chosen(output: Path | None, *found: Found, template: str | None = None, extension: str = ".png") -> list[str]:
    namer = Namer(output, template=template)
    return [namer.choose(one, extension, model="photo", scale="4")[0].as_posix() for one in found]


def test_beside_the_input_the_name_says_model_and_scale() -> None:
    assert chosen(None, Found(Path("d/a.b.png"), Path("a.b.png"), None)) == ["d/a.b_photo_x4.png"]


def test_in_an_output_folder_names_and_tree_are_kept() -> None:
    nested = Found(Path("in/sub/b.png"), Path("sub/b.png"), Path("in"))
    assert chosen(Path("out"), Found(Path("x/a.png"), Path("a.png"), None), nested) == ["out/a.png", "out/sub/b.png"]


def test_folder_without_output_gets_a_neighbour(tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    assert chosen(None, Found(folder / "s" / "a.png", Path("s/a.png"), folder)) == [f"{tmp_path}/holiday_upscaled/s/a.png"]


def test_output_file_is_taken_as_it_is_but_for_a_changed_format() -> None:
    one = Found(Path("a.png"), Path("a.png"), None)
    assert chosen(Path("d/wanted.jpg"), one, extension=".jpg") == ["d/wanted.jpg"]
    assert chosen(Path("d/wanted.jpg"), one, extension=".png") == ["d/wanted.png"]


def test_template_makes_the_name_everywhere() -> None:
    one = Found(Path("d/a.png"), Path("a.png"), None)
    assert chosen(None, one, template="{stem}-{scale}x-{model}") == ["d/a-4x-photo.png"]
    assert chosen(Path("out"), one, template="big_{stem}") == ["out/big_a.png"]


def test_colliding_names_are_told_apart_by_rule() -> None:
    inputs = [Found(Path(n), Path(n), None) for n in ("a.jpg", "a.png", "A.PNG", "e\u0301.png", "é.png")]
    namer = Namer(Path("out"), template=None)
    results = [namer.choose(one, ".png", model="m", scale="4") for one in inputs]
    assert [path.name for path, _ in results] == ["a.png", "a.png.png", "A.PNG.2.png", "e\u0301.png", "é.png.png"]
    assert [[notice.id for notice in notices] for _, notices in results] == [
        [],
        ["name-collision"],
        ["name-collision"],
        [],
        ["name-collision"],
    ]


@pytest.mark.slow
@given(st.lists(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1), max_size=12))
def test_no_two_outputs_are_ever_called_alike(stems: list[str]) -> None:
    """On a disk that ignores case, too, and no name is longer than a file system takes."""
    namer = Namer(Path("out"), template=None)
    found = [Found(Path(f"d{i}") / f"{stem}.png", Path(f"{stem}.png"), None) for i, stem in enumerate(stems)]
    paths = [namer.choose(one, ".png", model="m", scale="4")[0] for one in found]
    assert len({str(path).casefold() for path in paths}) == len(paths)
    assert all(len(os.fsencode(path.name)) <= NAME_BYTES for path in paths)


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, "🌅" * 62])
def test_long_names_are_kept_as_long_as_they_fit_and_shortened_beyond(tmp_path: Path, stem: str) -> None:
    one = Found(tmp_path / f"{stem}.png", Path(f"{stem}.png"), None)
    kept, notices = Namer(tmp_path, template=None).choose(one, ".png", model="photo", scale="4")
    assert (kept.name, notices) == (f"{stem}.png", [])
    short, notices = Namer(None, template=None).choose(one, ".png", model="photo", scale="4")
    assert [notice.id for notice in notices] == ["name-shortened"]
    assert short.suffix == ".png"
    assert short.name.startswith(stem[:40])
    short.write_bytes(b"")  # the file system takes it


def test_long_names_that_begin_alike_stay_apart() -> None:
    found = [Found(Path("x" * 245 + end + ".png"), Path("x" * 245 + end + ".png"), None) for end in ("a", "b")]
    assert len(set(chosen(None, *found))) == 2
    same = [Found(Path(folder) / f"{'x' * 252}.jpg", Path("x" * 252 + ".jpg"), None) for folder in ("one", "two", "three")]
    assert len(set(chosen(Path("out"), *same, extension=".jpg"))) == 3


@pytest.mark.parametrize(
    "template",
    [
        *("{stem", "{foo}", "{}", "{stem[0]}", "{stem.x}", "{stem:d}", "a/b", ""),
        *("a\\b", "a\tb", "a\nb", "a:b", "a*b", "a?", "<a>", "a|b", 'a"b', "\x1b[31m{stem}"),
        *("CON", "nul.{scale}", "com1", "..", "{stem}.", "{stem} ", " "),
        *("{stem:>999999999}", "{stem!r}", "{stem:{model}}"),
    ],
)
def test_templates_that_make_no_name_are_refused(template: str) -> None:
    with pytest.raises(UsageError, match="name="):
        Namer(None, template=template)


def test_template_contradicts_an_output_file() -> None:
    with pytest.raises(UsageError, match=r"contradicts the output file"):
        Namer(Path("a.png"), template="{stem}")


def test_format_must_agree_with_the_output_file() -> None:
    namer = Namer(Path("a.JPG"), template=None)
    assert namer.wanted_format("jpeg") == ".JPG"
    assert namer.wanted_format(None) == ".JPG"
    with pytest.raises(UsageError, match="contradicts"):
        namer.wanted_format("png")
    assert Namer(Path("folder"), template=None).wanted_format("png") == "png"


def test_output_that_cannot_take_the_inputs_is_refused(tmp_path: Path) -> None:
    one, two = (Found(tmp_path / n, Path(n), None) for n in ("a.png", "b.png"))
    in_folder = Found(tmp_path / "a.png", Path("a.png"), tmp_path)
    make(tmp_path, "there.png", "there.txt")
    check_output([one], tmp_path / "new.png")
    check_output([one, two], tmp_path / "v1.0")  # a folder to be made
    for found, output in (([one, two], "new.png"), ([in_folder], "new.png"), ([one, two], "there.png"), ([one], "there.txt")):
        with pytest.raises(UsageError):
            check_output(found, tmp_path / output)


def test_extension_of_a_foreign_format_means_a_file_not_a_folder() -> None:
    """`-o photo.jp2` must be told that JPEG 2000 cannot be written, and not make a folder of that name."""
    assert Namer(Path("photo.jp2"), template=None).wanted_format(None) == ".jp2"
