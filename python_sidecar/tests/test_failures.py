"""What is said of a load that failed."""

import pytest
from bench_sidecar import failures
from bench_sidecar.records import EngineError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("This model does not support generation", "does not generate text"),
        ("Please pass the argument `trust_remote_code=True`", "--trust-remote-code"),
        ("'_C' object has no attribute 'selective_scan_fwd'", "no kernel selective_scan_fwd"),
        ("Cannot find any model weights with `/m`", "--load-format dummy"),
        ("Model architectures ['X'] are not supported for now", "no implementation"),
        ("architectures ['X'] were removed: X was supported in vLLM until v0.9", "no implementation"),
        ("Can't load the configuration of 'x/y'", "the hub could not be reached"),
        ("'mask' not found in the forward method", "layers of a decoder"),
        ("Cannot find an appropriate cached snapshot folder for the revision", "HF_HUB_OFFLINE forbids"),
        ("Repo id must be in the form 'repo_name': '/m'", "neither a folder on this machine nor a name"),
        ("x/y is not a local folder and is not a valid model identifier", "not on this machine"),
        ("Given number of CPU id list ['0'] doesn't match local world size 2", "lower the parallel sizes"),
    ],
)
def test_known_failure_is_explained_before_vllms_own_text(text: str, meaning: str) -> None:
    said = failures.explain(RuntimeError(f"{text}\n  and more"))
    assert said is not None
    first, second = said.split("\n")
    assert meaning in first
    assert second == f"  vLLM says: RuntimeError: {text} and more"


def test_validation_error_is_told_without_the_values_that_it_dumps() -> None:
    dump = (
        "1 validation error for VllmConfig\n  Value error, not with this one [type=value_error, input_value=Args((...)]"
    )
    said = failures.explain(ValueError(dump))
    assert said is not None
    assert said.endswith("vLLM says: ValueError: not with this one")


def test_unknown_failure_and_our_own_come_through() -> None:
    for err in (RuntimeError("something else"), EngineError("our own trust_remote_code")):
        with pytest.raises(type(err)) as caught, failures.explained():
            raise err
        assert caught.value is err
    with pytest.raises(EngineError, match="--trust-remote-code"), failures.explained():
        raise ValueError("needs trust_remote_code")


def test_failure_that_is_explained_twice_is_told_once() -> None:
    refusal = ValueError("This model does not support generation")
    with pytest.raises(EngineError) as caught, failures.explained(), failures.explained():
        raise EngineError(f"vLLM refuses request 0: {refusal}") from refusal
    assert str(caught.value).count("vLLM says: ValueError: This model does not support generation") == 1
    assert str(caught.value).count("generate") == 2
