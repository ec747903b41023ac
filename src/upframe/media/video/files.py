"""Read and write videos: the entry point of this layer for videos.

info = probe_video(path)                              headers and one frame
index = index_video(path, info=info)                  every frame counted, timed and checked
plan = plan_video(info, container="mp4", size=...)    how it is written, and losses
with VideoSource(path, info=info, index=index) as source, VideoSink(work, plan, frames=50) as sink:
    for frame in source.range(0, 50):
        sink.write(upscaled(frame.pixels), pts=frame.pts)
expected = join([work, ...], part, plan, timing=index, info=info)
verify_video(part, expected)                          then the caller renames it
"""

from upframe.media.names import DEFAULT_RATE, DEINTERLACERS, ODD_POLICIES, Deinterlace, Odd, OnBadFrame, is_video_name
from upframe.media.video.account import folder_ledger, reading_ledger, side_ledger
from upframe.media.video.codecs import CODECS, CONTAINERS, codec_named, container_named
from upframe.media.video.folder import FolderTiming, FrameFolder, FrameFolderSink, rgb16
from upframe.media.video.frame_facts import ColourTags, Hdr10
from upframe.media.video.index import FrameIndex, cut_short, index_video, timecode
from upframe.media.video.info import Chapter, StreamInfo, VideoInfo, probe_video, reaches
from upframe.media.video.mux import Expected, ExpectedTrack, join
from upframe.media.video.plan import plan_video
from upframe.media.video.sink import VideoSink
from upframe.media.video.source import VideoFrame, VideoSource
from upframe.media.video.survey import Survey
from upframe.media.video.tags import from_later_frame, unwritten_tags
from upframe.media.video.timing import Timing
from upframe.media.video.verify import verify_video
from upframe.media.video.written import Carried, VideoPlan

__all__ = [
    "CODECS",
    "CONTAINERS",
    "DEFAULT_RATE",
    "DEINTERLACERS",
    "ODD_POLICIES",
    "Carried",
    "Chapter",
    "ColourTags",
    "Deinterlace",
    "Expected",
    "ExpectedTrack",
    "FolderTiming",
    "FrameFolder",
    "FrameFolderSink",
    "FrameIndex",
    "Hdr10",
    "Odd",
    "OnBadFrame",
    "StreamInfo",
    "Survey",
    "Timing",
    "VideoFrame",
    "VideoInfo",
    "VideoPlan",
    "VideoSink",
    "VideoSource",
    "codec_named",
    "container_named",
    "cut_short",
    "folder_ledger",
    "from_later_frame",
    "index_video",
    "is_video_name",
    "join",
    "plan_video",
    "probe_video",
    "reaches",
    "reading_ledger",
    "rgb16",
    "side_ledger",
    "timecode",
    "unwritten_tags",
    "verify_video",
]
