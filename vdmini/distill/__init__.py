"""Distillation: a pruned student learns from its teacher by the ICMD loss, on one process or many."""

from vdmini.distill.loop import distill as distill
from vdmini.distill.settings import Distilled as Distilled
from vdmini.distill.settings import DistillSettings as DistillSettings
from vdmini.distill.settings import DivergedError as DivergedError
from vdmini.distill.settings import StepLosses as StepLosses
