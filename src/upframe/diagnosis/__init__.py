"""The state of an installation: versions, devices, kernels, codecs, extras, disk, and a self-test with a known answer."""

from upframe.diagnosis.examination import Finding, examine

__all__ = ["Finding", "examine"]
