"""The type checker holds each family's modules to their protocols here; nothing imports this file."""

from __future__ import annotations

from vdmini.conditioning import Conditioning
from vdmini.conditioning import cogvideox as feed_cogvideox
from vdmini.conditioning import hunyuanvideo as feed_hunyuanvideo
from vdmini.conditioning import mochi as feed_mochi
from vdmini.conditioning import svd as feed_svd
from vdmini.conditioning import videocrafter as feed_videocrafter
from vdmini.conditioning import wan as feed_wan
from vdmini.models import animatediff, cogvideox, hunyuanvideo, ltx, mochi, svd, videocrafter, wan
from vdmini.models.family import Family

FAMILIES: tuple[Family, ...] = (svd, videocrafter, animatediff, hunyuanvideo, wan, cogvideox, ltx, mochi)
CONDITIONING: tuple[Conditioning, ...] = (
    feed_svd,
    feed_videocrafter,
    feed_hunyuanvideo,
    feed_wan,
    feed_cogvideox,
    feed_mochi,
)
