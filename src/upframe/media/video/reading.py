"""A reading of a file that can be left and taken up again."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

import av

MOST_KEPT_BYTES = 1 << 28
"""Of decoded pictures that are kept for whoever reads on."""

Pictures = Generator[tuple[int, av.VideoFrame], None, None]
"""Numbers and decoded pictures, in display order."""


class Reading:
    """Pictures of a file as its decoder yields them; the last few are kept, because segments overlap.

    A file whose times jump cannot be searched. Without this, each of its segments would be decoded from the start of the file.

    Args:
        pictures: Closed with the reading.
        is_only_way: Whether they are read from the first picture of the file because searching it fails.
        is_certain: Whether each of them equals the picture that was indexed.
        kept: Number of pictures to keep.
    """

    def __init__(self, pictures: Pictures, *, is_only_way: bool, is_certain: bool, kept: int) -> None:
        self._pictures, self._most_kept = pictures, kept
        self.is_only_way, self.is_certain = is_only_way, is_certain
        self.next = 0
        """Number of the next picture of the decoder; 0 before the first."""
        self._kept: deque[tuple[int, av.VideoFrame]] = deque()

    def can_yield(self, number: int) -> bool:
        """Whether picture `number` is kept or yet to come."""
        return number >= self.next or any(kept == number for kept, _ in self._kept)

    def pictures(self, first: int, last: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the pictures from number `first` to `last` that the decoder yields."""
        yield from [one for one in self._kept if first <= one[0] <= last]
        while self.next <= last:
            one = next(self._pictures, None)
            if one is None:
                return
            self.next = one[0] + 1
            self._keep(one)
            if one[0] >= first:
                yield one

    def _keep(self, one: tuple[int, av.VideoFrame]) -> None:
        self._kept.append(one)
        size = sum(plane.buffer_size for plane in one[1].planes)
        while len(self._kept) > self._most_kept or (len(self._kept) - 1) * size > MOST_KEPT_BYTES:
            self._kept.popleft()

    def close(self) -> None:
        self._pictures.close()
        self._kept.clear()
