"""Requests and answers of the REST service, as pydantic models. The server and `upframe.client` share them.

Options have the names that messages use (`scale`, `tile`, `video.crf`), so that an error names the field of the request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from upframe.media.names import DEINTERLACERS, MAX_CRF

JobState = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
Kind = Literal["photo", "video"]
Of = Literal["input", "output"]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="16 hexadecimal digits")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")]
Name = Annotated[str, Field(min_length=1, max_length=1000)]

assert DEINTERLACERS == ("off", "auto", "bwdif", "yadif")  # as in `VideoOptions.deinterlace` below


class Wire(BaseModel):
    """Base of all: unknown fields are refused, so that a typo does not pass for a default."""

    model_config = ConfigDict(extra="forbid")


class Size(Wire):
    height: int
    width: int


# Options --------------------------------------------------------------------------------------------------------------
class Cleaning(Wire):
    """For networks that clean videos; empty fields are the network's defaults."""

    threshold: float | None = Field(default=None, ge=0)
    max_passes: int | None = Field(default=None, ge=0, le=100)
    strength: float | None = Field(default=None, ge=0, le=1)


class VideoOptions(Wire):
    """Fields as in `upframe.VideoOptions`."""

    codec: Word | None = Field(
        default=None, description="h264, h265, av1, ffv1 or prores; empty keeps the input's where possible"
    )
    crf: int | None = Field(default=None, ge=0, le=MAX_CRF)
    preset: Word | None = None
    encoder: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=1000)]] = Field(
        default={}, max_length=100, description="further options of the encoder; docs/serve.md has those that are offered"
    )
    pix_fmt: Word | None = None
    odd: Literal["pad", "crop", "444"] = "pad"
    audio: bool = True
    subtitles: bool = True
    start: float | None = Field(default=None, ge=0, description="seconds after the first frame")
    end: float | None = Field(default=None, ge=0, description="seconds after the first frame")
    stream: int | None = Field(default=None, ge=0)
    deinterlace: Literal["off", "auto", "bwdif", "yadif"] = "off"
    on_bad_frame: Literal["repeat", "skip", "fail"] = "repeat"
    segment_frames: int | None = Field(default=None, ge=1)
    context: int | None = Field(default=None, ge=0)
    cleaning: Cleaning | None = None


class Options(Wire):
    """Options of a job: those of `upframe.JobOptions`, with sizes, tiles and the engine on one level."""

    model: str | None = Field(
        default=None, max_length=1000, description="a name of GET /api/models, or a weights file under --allow"
    )
    task: Literal["upscale", "deblur", "denoise", "interpolate"] = "upscale"

    scale: float | None = Field(default=None, gt=0, le=10_000)
    width: int | None = Field(default=None, ge=1, le=1_000_000)
    height: int | None = Field(default=None, ge=1, le=1_000_000)
    long_side: int | None = Field(default=None, ge=1, le=1_000_000)
    short_side: int | None = Field(default=None, ge=1, le=1_000_000)
    megapixels: float | None = Field(default=None, gt=0, le=1_000_000)

    format: Word | None = Field(
        default=None, description="png, jpg, webp, tiff, avif, gif, bmp, mp4, mkv, mov, webm; empty keeps it"
    )
    quality: int | None = Field(default=None, ge=1, le=100)
    strict: bool = False
    allow_truncated: bool = False
    first_frame: bool = False

    tile: Literal["auto", "off"] | Annotated[int, Field(ge=16)] = "auto"
    halo: int | None = Field(default=None, ge=0)
    blend: int | None = Field(default=None, ge=0)
    window: int | None = Field(default=None, ge=1)
    sigma: float | None = Field(default=None, ge=0, le=255)
    as_published: bool = False
    engine: Literal["auto", "torch", "native", "compile", "openvino", "onnx", "vulkan"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)

    video: VideoOptions = VideoOptions()


# Sources --------------------------------------------------------------------------------------------------------------
class Source(Wire):
    """One of the three: a finished upload, a file of the server under --allow, or the input of an earlier job."""

    upload: Id | None = None
    path: Name | None = None
    job: Id | None = None


class Upload(Wire):
    """A file on its way to the server. It is complete when `offset` equals `length`."""

    id: Id
    name: str = Field(description="as the user calls it; files on the server's disk have other names")
    kind: Kind = Field(description="by its name")
    length: int = Field(description="bytes in all")
    offset: int = Field(description="bytes that have arrived")
    expires: float = Field(description="Unix time; an upload that no job uses is removed then")


class UploadList(Wire):
    uploads: list[Upload]


class NewUpload(Wire):
    name: Name
    length: int = Field(ge=1, description="bytes")


class ServedFile(Wire):
    """One entry of a folder under --allow."""

    name: str
    path: str
    is_folder: bool
    kind: Kind | None = Field(default=None, description="of a file, by its name")
    bytes: int | None = None


class Folder(Wire):
    path: str | None = Field(description="empty for the list of allowed folders")
    parent: str | None
    trail: list[ServedFile] = Field(description="the allowed folder, and those on the way to this one, which is the last")
    files: list[ServedFile] = Field(description="first folders, then files, in the order of their names")
    folders: int = Field(description="folders in all")
    total: int = Field(description="entries in all; `limit` and `offset` choose some")


# Plans ----------------------------------------------------------------------------------------------------------------
class Notice(Wire):
    """A loss or substitution; docs/notices.md explains the ids."""

    id: str
    message: str


class LedgerEntry(Wire):
    """One thing that the input holds, and its fate."""

    kind: str
    name: str
    fate: Literal["carried", "changed", "lost"]
    detail: str = ""
    notice: str = ""


class VideoFacts(Wire):
    seconds: float | None
    rate: float = Field(description="frames per second")
    audio: list[str] = Field(description="codec of each audio track")
    subtitles: int
    interlaced: bool


class Plan(Wire):
    """How one input would be made: the facts that `upframe --dry-run` prints."""

    name: str = Field(description="of the input")
    output_name: str
    kind: Kind
    model: str
    input_size: Size
    size: Size = Field(description="of the output")
    format: str
    frames: int
    engine: str
    precision: str
    tile: Size
    window: int | None = None
    memory_bytes: int
    file_bytes: int = Field(description="of the output, rather too many")
    seconds: float | None = Field(description="of the network on this machine; empty where no time can be told")
    video: VideoFacts | None = None
    notices: list[Notice]
    ledger: list[LedgerEntry]


class NewPlan(Wire):
    source: Source
    options: Options = Options()


class Error(Wire):
    """The command line's one-line message, and its parts."""

    error: str = Field(description="one line: which thing, what happened, what to do")
    kind: str
    exit_code: int
    subject: str = ""
    happened: str = ""
    advice: str = ""
    option: str | None = Field(default=None, description="the field of `Options` that it is about, as in `video.crf`")


# Jobs -----------------------------------------------------------------------------------------------------------------
class Progress(Wire):
    done: float = Field(ge=0, le=1, description="share")
    stage: str = Field(description="starting, reading, upscaling, checking")
    frame: int | None = None
    frames: int | None = None
    frames_per_s: float | None = None
    seconds_left: float | None = None


class Output(Wire):
    name: str = Field(description="for the user's disk")
    type: str = Field(description="media type")
    bytes: int
    size: Size
    seconds: float = Field(description="that the job took")
    engine: str | None = None
    precision: str | None = None


class Job(Wire):
    id: Id
    name: str = Field(description="of the input, as the user calls it")
    state: JobState
    kind: Kind | None = Field(default=None, description="known once it is planned")
    batch: str | None = None
    position: float = Field(description="the queue is worked off in ascending order")
    options: Options
    created: float
    started: float | None = None
    ended: float | None = None
    expires: float | None = Field(default=None, description="Unix time at which the ended job and its files are removed")
    attempts: int = 0
    input_bytes: int
    plan: Plan | None = None
    progress: Progress | None = None
    output: Output | None = None
    notices: list[Notice] = []
    ledger: list[LedgerEntry] = Field(default=[], description="everything that the input held; complete once the job is done")
    error: Error | None = Field(default=None, description="why it failed, or why it waits though it is its turn")


class NewJob(Wire):
    source: Source
    options: Options = Options()
    batch: Word | None = Field(default=None, description="a word that groups jobs, for lists and the ZIP")
    paused: bool = Field(default=False, description="wait until POST /api/jobs/{id}/resume")


class JobList(Wire):
    jobs: list[Job]
    total: int
    last_event: int = Field(description="pass it as Last-Event-ID to GET /api/events to miss nothing")


class Move(Wire):
    before: Id | None = Field(default=None, description="the queued job to stand before; empty for the end of the queue")


class Queue(Wire):
    paused: bool = Field(description="whether no job is started; running ones are stopped and go on later")


class Event(Wire):
    """Data of a server-sent event. Its `event` is the name, its `id` a number that grows; progress has no id."""

    id: int | None
    job: Id
    time: float
    event: Literal[
        "queued", "started", "progress", "notice", "video", "paused", "done", "failed", "cancelled", "moved", "deleted"
    ]
    data: dict[str, Any]
    state: Job | None = Field(default=None, description="the job as it is now; empty for deleted ones")


# Trials ---------------------------------------------------------------------------------------------------------------
class Spot(Wire):
    """The middle of the crop, as shares of the picture's width and height."""

    x: float = Field(default=0.5, ge=0, le=1)
    y: float = Field(default=0.5, ge=0, le=1)


class NewTrial(Wire):
    source: Source
    options: Options = Options()
    models: list[str] | None = Field(default=None, max_length=20, description="empty: every suitable model that is ready")
    spot: Spot = Spot()
    side: int = Field(default=128, ge=16, le=512, description="of the crop, in pixels of the input")
    time: float | None = Field(default=None, ge=0, description="for a video: seconds after the first frame")
    clip_seconds: float | None = Field(
        default=None, gt=0, le=5, description="for a video: make clips of this length, not pictures"
    )


class TrialResult(Wire):
    """The crop as one model makes it; `model` is "before" for the input, enlarged without a network."""

    model: str
    state: Literal["waiting", "running", "done", "failed"]
    url: str | None = Field(default=None, description="a PNG, or an MP4 with H.264 for clips")
    seconds: float | None = None
    size: Size | None = None
    error: Error | None = None


class Scores(Wire):
    """Measures of the input, where they make sense: pictures and frames of videos."""

    noise: float = Field(description="standard deviation of the noise, 0 to 255")
    blockiness: float = Field(description="steps at the borders of JPEG's blocks over those between; about 1 without blocks")
    advice: str = Field(description="one sentence: which kind of model suits, and why")
    suggested: str | None = Field(default=None, description="name of that model")


class Trial(Wire):
    id: Id
    state: Literal["running", "done", "failed"]
    kind: Kind | None = None
    scores: Scores | None = None
    results: list[TrialResult]
    error: Error | None = None


# The service itself ---------------------------------------------------------------------------------------------------
class Model(Wire):
    name: str
    scale: int
    kind: Kind
    task: str
    for_degraded: bool = Field(description="made for noisy, blurred or compressed inputs")
    for_drawings: bool = Field(description="made for anime, comics and other drawings")
    sentence: str = Field(description="one sentence on what it is for")
    licence: str
    paper: str
    parameters: int
    ready: bool = Field(description="whether its weights are here")
    default: bool = Field(description="whether it is taken where no model is named")


class Limits(Wire):
    upload_bytes: int
    pixels: int = Field(description="of one input picture")
    output_pixels: int
    jobs: int = Field(description="waiting at once")
    video_seconds: float
    data_bytes: int | None = Field(description="of all files together; empty for the disk's own limit")
    keep_seconds: float = Field(description="how long ended jobs are kept")


class Choices(Wire):
    """Values that options take, for forms."""

    picture_formats: list[str]
    video_formats: list[str]
    codecs: list[str]
    engines: list[str]
    extensions: list[str] = Field(description="of files that can be inputs")


class Preset(Wire):
    """Options under a name."""

    id: Literal["photo", "old-photo", "video", "clean-video", "old-video", "drawings", "drawn-video"]
    kind: Kind
    sentence: str
    options: Options


class Service(Wire):
    version: str
    limits: Limits
    choices: Choices
    presets: list[Preset]
    allow: list[str] = Field(description="folders whose files may be inputs")
    paused: bool
    used_bytes: int
    waiting: int
    running: int


class Health(Wire):
    status: Literal["ok"]
    version: str


class Login(Wire):
    token: str = Field(max_length=1000)
