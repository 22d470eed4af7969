"""What computes is counted, what the host waits for is named, and what only looks at memory in another way is neither."""

import pytest
import torch

from rlhf.models.operations import OperationCount


def test_what_computes_is_counted_by_name():
    a, b = torch.ones(3, 4), torch.ones(4)
    with OperationCount() as count:
        (a[1:].T.reshape(2, 4) * b + b).sum().add_(1)
    assert dict(count.operations) == {"aten::clone": 1, "aten::mul": 1, "aten::add": 1, "aten::sum": 1, "aten::add_": 1}
    assert count.total == 5 and not count.host_reads
    a * b
    assert count.total == 5, "nothing is counted outside of the block"


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: float(x[0]),
        lambda x: range(x.long()[0]),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x + torch.tensor([1.0]),
    ],
)
def test_each_look_of_the_host_is_named(look):
    x = torch.ones(5)
    with OperationCount() as count:
        look(x)
    assert count.host_reads
