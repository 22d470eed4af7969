import pytest

from storage.core.database import StoreError
from storage.people import annotators


def test_a_name_is_one_annotator(store):
    ann = annotators.ensure(store, " Ann ")
    assert (ann.name, ann.kind, ann.rule) == ("Ann", "human", None)
    assert annotators.ensure(store, "Ann") == ann == annotators.get(store, ann.id)
    rule = annotators.ensure(store, "longest", "simulated", "length")
    assert annotators.ensure(store, "longest", "simulated", "length") == rule
    assert annotators.all_annotators(store) == [ann, rule]


def test_an_annotator_never_changes_its_kind_or_rule(store):
    annotators.ensure(store, "Ann")
    annotators.ensure(store, "longest", "simulated", "length")
    with pytest.raises(StoreError, match="Ann is a human annotator and cannot become simulated: choose another"):
        annotators.ensure(store, "Ann", "simulated", "length")
    with pytest.raises(StoreError, match="longest is a simulated annotator and cannot become human"):
        annotators.ensure(store, "longest")
    with pytest.raises(StoreError, match="judges by length, not vader"):
        annotators.ensure(store, "longest", "simulated", "vader")
    assert [annotator.kind for annotator in annotators.all_annotators(store)] == ["human", "simulated"]


def test_refuses_empty_names_and_rules_that_do_not_fit_the_kind(store):
    with pytest.raises(StoreError, match="needs a name"):
        annotators.ensure(store, "  ")
    with pytest.raises(StoreError, match="needs a rule"):
        annotators.ensure(store, "x", "simulated")
    with pytest.raises(StoreError, match="human one has none"):
        annotators.ensure(store, "x", "human", "length")
    with pytest.raises(StoreError, match="no annotator 5 .*enter your name again"):
        annotators.get(store, 5)
    assert annotators.all_annotators(store) == []
