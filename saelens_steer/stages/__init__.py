"""What each step of a run does with the run folder: compute, write, read back."""

from saelens_steer.stages.check import check_asked
from saelens_steer.stages.compare import compare
from saelens_steer.stages.export import export_vectors
from saelens_steer.stages.features import features
from saelens_steer.stages.grid import grid
from saelens_steer.stages.label import label
from saelens_steer.stages.matrix import matrix
from saelens_steer.stages.patch import patch
from saelens_steer.stages.report import report
from saelens_steer.stages.run import RunContext
from saelens_steer.stages.sae import train
from saelens_steer.stages.select import cache, select
from saelens_steer.stages.sweep import sweep
from saelens_steer.stages.template import template
from saelens_steer.stages.topic import generate_topic
from saelens_steer.stages.twin import twin
