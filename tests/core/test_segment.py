"""What a segment holds: its index, and what policies made of it, each once."""

import numpy as np

from penstock_service.core.segment import Segment


def a_segment(units: int) -> Segment:
    return Segment(0, np.zeros(units, np.uint32), np.zeros(units, np.uint32), digest=0)


def test_a_segment_that_is_its_own_kin_counts_once() -> None:
    segment = a_segment(10)
    segment.kin["skip"] = segment  # a policy that had nothing to leave out
    assert segment.nbytes == 80
    segment.kin["quarantine"] = a_segment(9)
    segment.kin["substitute"] = segment.kin["quarantine"]
    assert segment.nbytes == 80 + 72
