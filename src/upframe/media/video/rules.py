"""The fate of each kind of data beside the pictures: one table that knows every kind of the FFmpeg and PyAV in use.

A kind that is not in the table is lost, with a notice, so that a newer FFmpeg cannot make upframe lose anything silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from upframe.media.ledger import Entry, Fate


@dataclass(frozen=True)
class Rule:
    fate: Fate
    detail: str = ""
    notice: str | None = None


@dataclass(frozen=True)
class Abilities:
    """Properties of an output that decide the fate of side data."""

    hdr10: bool = False
    """Whether it holds static HDR metadata."""
    matrix: bool = False
    """Whether it holds the display matrix of the input."""
    captions: bool = False
    """Whether it holds closed captions."""
    timecode: bool = False
    """Whether it has the time code of the input's first frame."""
    stereo: bool = False
    """Whether it holds the arrangement of the views of a 3D picture."""


def side_data_entry(name: str, able: Abilities) -> Entry:
    """The entry for a kind of side data, by its name in `SIDE_DATA`."""
    rule = SIDE_DATA.get(name, _UNKNOWN)
    is_held = {_IF_HDR10: able.hdr10, _IF_MATRIX: able.matrix, _IF_CAPTIONS: able.captions, _IF_STEREO: able.stereo}
    if any(held and name in names for names, held in is_held.items()):
        rule = Rule("carried")
    if able.timecode and rule is _TIMECODE:
        rule = _TIMECODE_KEPT
    return Entry("side data", name, rule.fate, rule.detail, rule.notice)


_UNKNOWN = Rule("lost", "side data of a kind that upframe does not know is dropped", "side-data-dropped")

_SOUND = Rule("carried", "it belongs to sound, whose packets are copied")
_OLD_CODING = Rule("changed", "it describes the old compression; the new one makes its own")
_CONTAINER = Rule("changed", "it belongs to the old container; the new one makes its own")
_DECODED = Rule("changed", "the decoder applies it to the picture")
_APPLIED = Rule("changed", "upframe applies it to the picture")
_NOTHING = Rule("changed", "it states nothing about this picture")
_CAPTIONS = Rule("lost", "its closed captions are dropped", "captions-dropped")
_VIEW = Rule("lost", "its 360° or 3D projection is dropped, so players show a flat picture", "projection-dropped")
_HDR = Rule("lost", "its static HDR metadata is dropped", "hdr-dropped")
_DYNAMIC_HDR = Rule("lost", "its dynamic HDR metadata is dropped", "hdr-dropped")
_DOLBY = Rule("lost", "its Dolby Vision layer is dropped", "dv-dropped")
_ALPHA = Rule("lost", "its transparency, a second layer in each packet, is dropped", "alpha-dropped")
_MATRIX = Rule("lost", "the output cannot hold its display matrix, so players show it unturned", "side-data-dropped")


def _dropped(label: str) -> Rule:
    return Rule("lost", f"its {label} is dropped", "side-data-dropped")


_TIMECODE = _dropped("time code in the frames")
_TIMECODE_KEPT = Rule("changed", "the time code of the first frame becomes that of the video")

SIDE_DATA: Mapping[str, Rule] = {
    # Kinds of frames: PyAV's `av.sidedata.sidedata.Type`, with the additions of `frame_facts.side_data_kind`.
    "PANSCAN": _dropped("pan-and-scan window"),
    "PANSCAN (centred)": _NOTHING,
    "A53_CC": _CAPTIONS,
    "A53_CC (padding)": _NOTHING,
    "STEREO3D": _VIEW,
    "STEREO3D (2D)": _NOTHING,
    "MATRIXENCODING": _SOUND,
    "DOWNMIX_INFO": _SOUND,
    "REPLAYGAIN": _SOUND,
    "DISPLAYMATRIX": _MATRIX,
    "AFD": _dropped("active format description"),
    "AFD (whole frame)": _NOTHING,
    "MOTION_VECTORS": _OLD_CODING,
    "SKIP_SAMPLES": _SOUND,
    "AUDIO_SERVICE_TYPE": _SOUND,
    "MASTERING_DISPLAY_METADATA": _HDR,
    "GOP_TIMECODE": _TIMECODE,
    "GOP_TIMECODE (zero)": _NOTHING,
    "SPHERICAL": _VIEW,
    "CONTENT_LIGHT_LEVEL": _HDR,
    "ICC_PROFILE": _dropped("colour profile"),
    "S12M_TIMECODE": _TIMECODE,
    "DYNAMIC_HDR_PLUS": _DYNAMIC_HDR,
    "REGIONS_OF_INTEREST": _dropped("list of regions of interest"),
    "VIDEO_ENC_PARAMS": _OLD_CODING,
    "SEI_UNREGISTERED": _dropped("user data in the frames"),
    "SEI_UNREGISTERED (encoder)": _OLD_CODING,
    "FILM_GRAIN_PARAMS": _dropped("description of grain"),
    "DETECTION_BBOXES": _dropped("list of detected objects"),
    "DOVI_RPU_BUFFER": _DOLBY,
    "DOVI_METADATA": _DOLBY,
    "DYNAMIC_HDR_VIVID": _DYNAMIC_HDR,
    "AMBIENT_VIEWING_ENVIRONMENT": _DYNAMIC_HDR,
    "VIDEO_HINT": _OLD_CODING,
    # Kinds of packets and of whole streams: PyAV's `av.packet.PktSideDataT`, with the addition of `survey`.
    "palette": _DECODED,
    "new_extradata": _DECODED,
    "param_change": _DECODED,
    "h263_mb_info": _OLD_CODING,
    "replay_gain": _SOUND,
    "display_matrix": _MATRIX,
    "stereo_3d": _VIEW,
    "audio_service_type": _SOUND,
    "quality_stats": _OLD_CODING,
    "fallback_track": _dropped("reference to a track that replaces it"),
    "cpb_properties": _OLD_CODING,
    "skip_samples": _SOUND,
    "jp_dual_mono": _SOUND,
    "strings_metadata": _dropped("text in the packets"),
    "subtitle_position": _dropped("position of subtitles"),
    "matroska_block_additional": _dropped("additional data of Matroska blocks"),
    "matroska_block_additional (alpha)": _ALPHA,
    "webvtt_identifier": _dropped("names of WebVTT cues"),
    "webvtt_settings": _dropped("settings of WebVTT cues"),
    "metadata_update": _dropped("changing metadata"),
    "mpegts_stream_id": _CONTAINER,
    "mastering_display_metadata": _HDR,
    "spherical": _VIEW,
    "content_light_level": _HDR,
    "a53_cc": _CAPTIONS,
    "encryption_init_info": _dropped("encryption record"),
    "encryption_info": _dropped("encryption record"),
    "afd": _dropped("active format description"),
    "prft": _dropped("clock of its producer"),
    "icc_profile": _dropped("colour profile"),
    "dovi_conf": _DOLBY,
    "s12m_timecode": _TIMECODE,
    "dynamic_hdr10_plus": _DYNAMIC_HDR,
    "iamf_mix_gain_param": _dropped("IAMF record"),
    "iamf_info_param": _dropped("IAMF record"),
    "iamf_recon_gain_info_param": _dropped("IAMF record"),
    "ambient_viewing_environment": _DYNAMIC_HDR,
    "frame_cropping": _APPLIED,
    "lcevc": _dropped("LCEVC layer"),
    "3d_reference_displays": _VIEW,
    "rtcp_sr": _CONTAINER,
}

_IF_HDR10 = frozenset((
    "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "mastering_display_metadata", "content_light_level",
))  # fmt: skip
_IF_MATRIX = frozenset(("DISPLAYMATRIX", "display_matrix"))
_IF_CAPTIONS = frozenset(("A53_CC", "a53_cc"))
_IF_STEREO = frozenset(("STEREO3D", "stereo_3d"))
