"""Data review: what is wrong with a file of training rows, and what can be done about it.

`python -m training.review FILE` prints it; `review` gives it to other code. Imports neither torch nor transformers.
"""

from training.review.findings import Finding, Severity
from training.review.options import Family, ReviewOptions
from training.review.review import Part, Review, review

__all__ = ["Family", "Finding", "Part", "Review", "ReviewOptions", "Severity", "review"]
