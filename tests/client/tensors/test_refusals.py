"""What cannot be is refused when the stream is opened, not at batch 10,000."""

import logging
import re
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from penstock.errors import ConversionError, InvalidRequest
from penstock.tensors import plan_columns


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.null(), "column 'x' (null): every value is null"),
        (pa.list_(pa.list_(pa.int8())), "column 'x' (list<item: list<item: int8>>): lists of lists of varying length"),
        (pa.list_(pa.list_(pa.int8()), 2), "lists of lists of varying length have no padded form"),
        (pa.list_(pa.struct([("a", pa.int8())])), "its items are struct<a: int8>, which have no form as a tensor"),
        (pa.list_(pa.null()), "its items are null"),
        (pa.month_day_nano_interval(), "column 'x' (month_day_nano_interval): this type has no form as a tensor"),
        (pa.dense_union([pa.field("a", pa.int8())]), "this type has no form as a tensor"),
        (pa.struct([]), "a struct without fields"),
    ],
    ids=str,
)
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_a_type_without_a_form_as_a_tensor(kind: pa.DataType, said: str, output: str) -> None:
    schema = pa.schema([("x", kind)])
    with pytest.raises(ConversionError, match=re.escape(said)) as caught:
        plan_columns(schema, output)
    assert 'leave it out with columns=[...], or take output="arrow"' in str(caught.value)
    assert plan_columns(schema, "arrow").keys == ("x",)


def test_all_columns_that_cannot_be_are_named_at_once() -> None:
    schema = pa.schema([("a", pa.null()), ("b", pa.int8()), ("c", pa.struct([("d", pa.null())]))])
    with pytest.raises(ConversionError, match=r"(?s)column 'a' .*\ncolumn 'c\.d' "):
        plan_columns(schema, "numpy")


@pytest.mark.parametrize(
    ("fields", "options", "key"),
    [
        ([("x", pa.list_(pa.int8())), ("x_mask", pa.int8())], {}, "x_mask"),
        ([("x", pa.int8()), ("x_valid", pa.int8())], {"nulls": "mask"}, "x_valid"),
        ([("a", pa.struct([("b", pa.int8())])), ("a.b", pa.int8())], {}, "a.b"),
        ([("x", pa.int8()), ("x", pa.int8())], {}, "x"),
    ],
)
def test_two_columns_of_one_name(fields: list[Any], options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConversionError, match=f"two columns would be called '{key}'"):
        plan_columns(pa.schema(fields), "numpy", **options)


@pytest.mark.parametrize(
    ("output", "options", "said"),
    [
        ("jax", {}, "output='jax': must be one of torch, mlx, numpy, arrow"),
        ("numpy", {"nulls": "ignore"}, "nulls='ignore': must be"),
        ("arrow", {"ragged": True}, 'output="arrow" hands out what is stored'),
        ("arrow", {"fill": {"x": 0}}, 'output="arrow" hands out what is stored'),
    ],
)
def test_arguments_that_are_wrong(output: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        plan_columns(pa.schema([("x", pa.int8())]), output, **options)


def test_a_bundle_of_another_schema() -> None:
    converter = plan_columns(pa.schema([("x", pa.int8())]), "numpy")
    with pytest.raises(ConversionError, match="not those that were announced"):
        converter.open(pa.record_batch({"x": pa.array([1.0])}), None)


@pytest.mark.parametrize("name", ["torch", "mlx"])
def test_a_library_that_is_missing_is_named_with_what_installs_it(name: str) -> None:
    # In a process of its own: what is not there cannot be un-imported here.
    script = f"""
import sys
sys.modules[{name!r}] = None
import pyarrow as pa
from penstock.tensors import plan_columns
try:
    plan_columns(pa.schema([("x", pa.int8())]), {name!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"InvalidRequest output={name!r} needs {name}")
    assert f'pip install "penstock[{name}]"' in done.stdout


def test_neither_torch_nor_mlx_is_imported_unasked() -> None:
    script = """
import sys
import pyarrow as pa
from penstock import batch, world
from penstock.tensors import plan_columns
for output in ("numpy", "arrow"):
    plan_columns(pa.schema([("x", pa.int8())]), output)
world.detect_world()
batch.Batch({"x": 1})
print([name for name in ("torch", "mlx", "fastapi", "psutil", "prometheus_client") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_mlx_narrows_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    schema = pa.schema([("narrow", pa.float64()), ("price", pa.decimal128(5, 2)), ("y", pa.int64())])
    with caplog.at_level(logging.WARNING, "penstock"):
        plan_columns(schema, "mlx")
        plan_columns(schema, "mlx")
        plan_columns(schema, "torch")
    assert caplog.messages == ['output="mlx" narrows narrow (float64 to float32), price (float64 to float32)']
