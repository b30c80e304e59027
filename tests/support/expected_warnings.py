"""Marks of tests whose networks or examples make Secateur warn; any other warning is an error (pyproject.toml)."""

import pytest

few_examples = pytest.mark.filterwarnings("ignore:.* is refitted with care only:UserWarning")
"""A layer reads more values than the test's examples determine."""

unread_targets = pytest.mark.filterwarnings("ignore:targets are left out, as no criterion needs them:UserWarning")
"""A network of the zoo, with targets for another loss than the default one."""

unhelpful_repair = pytest.mark.filterwarnings(
    r"ignore:\w+ was left out. it did not bring the cut network nearer:UserWarning",
    r"ignore:\w+ fits what it saw much better:UserWarning",
)
"""A network with random weights, of which a repair may fit nothing that holds for other examples."""
