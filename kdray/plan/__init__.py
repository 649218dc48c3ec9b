"""What a grid needs and what of it is there already. Imports neither torch nor ray."""

from kdray.plan.build import make_plan, make_scoring_plan, position_slug
from kdray.plan.steps import Plan, PointPlan, ScoreStep, State, Step, reading

__all__ = [
    "Plan",
    "PointPlan",
    "ScoreStep",
    "State",
    "Step",
    "make_plan",
    "make_scoring_plan",
    "position_slug",
    "reading",
]
