"""What is known about the terms of random-face, in the words that every bundle of it carries."""

from __future__ import annotations

TEACHER = (
    "Upstream's configuration names NVIDIA's StyleGAN2 FFHQ config F (mapping and synthesis) as the teacher, its data "
    "set class draws random latents only, and its export writes out the teacher's mapping network as it is, so by "
    "that code the mapping weights are the teacher's own and the synthesis weights were distilled from its pictures "
    "(source: configs/mobile_stylegan_ffhq.json, core/dataset.py, core/distiller.py of bes-dev/MobileStyleGAN.pytorch "
    "at a9776ff; arXiv 2104.04767; not verified against NVIDIA's file)."
)
RESTRICTION = (
    "NVIDIA's StyleGAN2 repository states the Nvidia Source Code License-NC, whose clause 3.3 limits the work and its "
    "derivatives to research or evaluation, and the teacher's photographs, FFHQ, are offered by NVIDIA under CC BY- "
    "NC-SA 4.0, the single photographs being under CC BY 2.0, CC BY-NC 2.0, Public Domain Mark, CC0 or U.S. "
    "Government Works (source: README of NVlabs/stylegan2; LICENSE-NVIDIA in bes-dev/MobileStyleGAN.pytorch, which is "
    "kept there for the CUDA kernels; LICENSE.txt of NVlabs/ffhq-dataset, read in a fork)."
)
UNSETTLED = (
    "No source was found that settles whether the author could license these weights under Apache-2.0, so ohlora "
    "reads the user's own copy on request, records these facts in the bundle, and ships neither the weights, nor "
    "generators fitted to them (tails, slim ones), nor pictures of theirs."
)
# One line each, for a manifest and for people who are about to fetch it.
LICENSE = "unsettled: the package says Apache-2.0, its teacher's terms are non-commercial (MODEL_CARD.md)"
SHORT = (
    "terms: the package says Apache-2.0; NVIDIA, on whose StyleGAN2 and FFHQ it was trained, allows research or "
    "evaluation only; which of them holds is not settled. ohlora ships none of it and reads your own copy"
)
