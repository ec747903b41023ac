import pytest

from upframe.errors import Notice
from upframe.media.ledger import Entry, Ledger


def test_a_loss_without_a_notice_cannot_be_entered():
    with pytest.raises(ValueError, match="without a notice"):
        Entry("tag", "title", "lost", "the format has no tags")
    with pytest.raises(ValueError, match="no-such-notice"):
        Entry("tag", "title", "lost", "the format has no tags", "no-such-notice")
    with pytest.raises(ValueError, match="detail"):
        Entry("tag", "title", "lost", "", "metadata-dropped")


def test_notices_come_from_the_entries_and_equal_ones_are_told_once():
    lost = [Entry("tag", name, "lost", "WebP has no place for its tags a and b", "metadata-dropped") for name in "ab"]
    ledger = Ledger.of([Entry("tag", "title", "carried"), *lost])
    assert ledger.notices("x.png") == (Notice("metadata-dropped", "x.png", "WebP has no place for its tags a and b"),)
    assert len(ledger.entries) == 3


def test_a_sum_of_ledgers_lists_everything_once_and_in_order():
    one, two = Entry("tag", "a", "carried"), Entry("tag", "b", "changed", "renamed to c")
    assert (Ledger.of([one, two]) + Ledger.of([two])).entries == (one, two)


def test_rows_name_the_fate_of_everything_and_stay_on_one_line():
    entry = Entry("tag", "a\nb", "lost", "MP4 has no place for it", "metadata-dropped")
    assert Ledger.of([entry]).rows() == [
        {
            "kind": "tag",
            "name": "a\\nb",
            "fate": "lost",
            "detail": "MP4 has no place for it",
            "notice": "metadata-dropped",
        }
    ]
