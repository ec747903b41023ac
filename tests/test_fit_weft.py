"""scripts/fit_weft.py: what it solves is the least weighted error, and clips that it saw come out better."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fit_weft
import fit_weft_tones
from conftest import make_photo
from upframe.models.architectures.weft import Weft
from upframe.pixels import imresize, to_unit
from upframe.training.data.samples import Sample

pytestmark = pytest.mark.slow

TOY = {"channels": 6, "blocks": 1, "trunk_channels": 8, "trunk_blocks": 1, "trunk_inner": 8}


def toy() -> Weft:
    torch.manual_seed(0)
    return Weft(scale=2, idle=True, **TOY).eval().requires_grad_(False)


def drifting(seed: int) -> Sample:
    """A photo that moves by a pixel a frame before it is reduced by two."""
    wide = to_unit(make_photo(48, 64, seed=seed))
    gt = torch.stack([wide[:, :, i : i + 48] for i in range(4)])
    return Sample(torch.stack([imresize(frame, 1 / 2) for frame in gt]).float(), gt.float())


def test_a_linear_relation_is_found() -> None:
    """If a mixture of the aligned detail is wanted, the fit predicts it, and a pixel without weight does not count."""
    direction = toy().backward_direction
    generator = torch.Generator().manual_seed(1)
    own, other, guides = (torch.randn(2, n, 20, 22, generator=generator) for n in (12, 12, 4))
    kernel = torch.randn(12, 12, 3, 3, generator=generator) / 10
    wanted = torch.nn.functional.conv2d(other, kernel, padding=1) + 0.3
    weights = torch.ones(2, 1, 20, 22)
    wanted[1, :, 3:6, 4:9], weights[1, :, 3:6, 4:9] = 1e3, 0.0
    equations = fit_weft.Equations(direction)
    equations.add(own, [other], guides, wanted, weights)
    with torch.no_grad():
        equations.solve()
        gap = (direction(own, [other], guides) - wanted)[weights.expand_as(wanted) > 0]
    assert gap.abs().max() < 0.05, "the ridge alone remains"


def test_clips_come_out_better() -> None:
    network = toy()
    with torch.no_grad():
        clips = [fit_weft.Clip(network, drifting(seed)) for seed in range(3)]
        before = fit_weft.level(clips, [clip.alone for clip in clips], network)
        fit_weft.fit(network, clips)
        made: list[list[Tensor]] = [list(network(sample.lq[None])[0].unbind(0)) for sample in map(drifting, range(3))]
    after = fit_weft.level(clips, [[frame[None] for frame in frames] for frames in made], network)
    assert after > before + 1.0, "an untrained trunk leaves much to mend"


def test_stills_are_left_to_the_trunk_and_clips_stay() -> None:
    """scripts/fit_weft_tones.py: what training added to flat colours goes, and clips are still better than by the trunk."""
    network = toy()
    with torch.no_grad():
        clips = [fit_weft.Clip(network, drifting(seed)) for seed in range(3)]
        fit_weft.fit(network, clips)
        for direction in (network.backward_direction, network.forward_direction):
            assert direction.learnt.bias is not None
            direction.learnt.bias += 0.1
        flats, others = (
            [fit_weft_tones.count_inside(fit_weft.Clip(network, fit_weft_tones.still(picture, 2)), 12) for picture in pictures]
            for pictures in (list(fit_weft_tones.flat_pictures())[::31], list(fit_weft_tones.patterned_pictures(2))[::12])
        )

        def added(sample: fit_weft.Clip) -> float:
            later = fit_weft.backward(network, sample, None)
            made = fit_weft.forward(network, sample, later, None)
            inside = (..., slice(24, -24), slice(24, -24))  # where stills count, enlarged
            return 255 * max(float((one - alone)[inside].abs().max()) for one, alone in zip(made, sample.alone, strict=True))

        def gain() -> float:
            later = [fit_weft.backward(network, sample, None) for sample in clips]
            made = [fit_weft.forward(network, *both, None) for both in zip(clips, later, strict=True)]
            alone = [sample.alone for sample in clips]
            return fit_weft.level(clips, made, network) - fit_weft.level(clips, alone, network)

        was, before = list(map(added, flats)), gain()
        fit_weft_tones.quieten(network, clips, flats, others)
        now = list(map(added, flats))
        assert max(now) < 0.5 * max(was)
        assert max(now[0], now[-1]) < 0.1 * max(was[0], was[-1]), "black and white weigh most"
        assert 0 < gain() < before, "an untrained trunk leaves much to mend, of which stills cost a part"
