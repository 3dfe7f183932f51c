"""What the scan of a text file gathers block by block: where to cut it, and the one schema of its rows."""

from functools import partial

import numpy as np
import pyarrow as pa

from penstock_service.core.errors import DataError
from penstock_service.source.format import ChunkLimits, Piece, ShardFile
from penstock_service.source.schemas import ConflictError
from penstock_service.source.text.blocks import RowBlock
from penstock_service.source.text.syntax import Head, Inferred, Part, Syntax, isolate

_RAW_FACTOR = 4  # a unit is read whole: its text may be so much longer than its rows when processed
_HOPELESS_ROWS = 1000
_NOTES = 20


class TextCutter:
    """Cuts the rows of a file into pieces of about one chunk each."""

    def __init__(self, limits: ChunkLimits, head: Head, one_unit: bool, by_line: bool) -> None:
        self._limits = limits
        self._one_unit = one_unit
        self._by_line = by_line
        self._head = head
        self._pieces: list[Piece] = []
        self._rows = 0
        self._bytes = 0.0
        self._offset = self._end = head.length
        self._line = head.lines
        self._unit_row = 0

    def add(self, block: RowBlock, size: int) -> None:
        """Rows that follow; `size` is about what they take when parsed."""
        if not block.num_rows:
            return
        raw = np.cumsum(block.lengths())
        ratio = max(size / int(raw[-1]), 1 / _RAW_FACTOR)
        done = 0
        while done < block.num_rows:
            before = int(raw[done - 1]) if done else 0
            room = (self._limits.bytes - self._bytes) / ratio
            fit = int(np.searchsorted(raw, before + room, side="right")) - done
            fit = min(fit, self._limits.rows - self._rows, block.num_rows - done)
            if self._rows == 0:
                self._offset = block.offset + int(block.starts[done])
                self._line = block.line_before(done) if self._by_line else len(self._pieces)
                fit = max(fit, 1)
            if fit <= 0:
                self._close()
                continue
            done += fit
            self._rows += fit
            self._bytes += (int(raw[done - 1]) - before) * ratio
            self._end = block.offset + (block.end if done == block.num_rows else int(block.starts[done]))

    def finish(self) -> list[Piece]:
        """All pieces. Those of one unit get that unit's extent."""
        self._close()
        if not self._one_unit:
            return self._pieces
        length = self._end - self._head.length
        return [p._replace(unit=self._head.lines, offset=self._head.length, length=length) for p in self._pieces]

    def _close(self) -> None:
        if self._rows:
            length = self._end - self._offset
            row = self._unit_row if self._one_unit else 0
            self._pieces.append(Piece(self._line, row, self._rows, self._offset, length, int(self._bytes)))
        self._unit_row += self._rows
        self._rows, self._bytes = 0, 0.0


class TextSchema:
    """The schema of all rows so far. A conflict is an error that names file, line and column."""

    def __init__(self, syntax: Syntax, file: ShardFile) -> None:
        self._syntax = syntax
        self._file = file
        self._schema: pa.Schema | None = None
        self._rows = 0
        self._bad = 0
        self._first_bad = ""
        self.notes: list[str] = []

    def add(self, block: RowBlock, head: Head) -> int:
        """Joins the schema of `block`'s rows; gives about how many bytes they have when parsed."""
        parts, bad = isolate(block, partial(self._syntax.infer, head=head))
        for part in parts:
            self._join(block, part, head)
        if bad and not self._bad:
            self._first_bad = f"{self._name(block, bad[0].row)}: {bad[0].reason}"
        self._bad += len(bad)
        self._rows += block.num_rows
        if self._bad == self._rows and self._bad >= _HOPELESS_ROWS:
            raise self._hopeless()
        return sum(part.value.nbytes for part in parts)

    def finish(self, head: Head, rows: int) -> pa.Schema | None:
        """The schema of the file; None if it says nothing."""
        if rows and self._bad == rows:
            raise self._hopeless()
        if self._bad:
            self.notes.append(f"{self._bad} of {rows} rows of {self._file.path} are malformed, first {self._first_bad}")
        if self._schema is None and head.columns:
            return pa.schema([(name, pa.null()) for name in head.columns])
        return self._schema

    def _join(self, block: RowBlock, part: Part[Inferred], head: Head) -> None:
        found = part.value.schema
        if self._schema is None:
            self._schema = found
            return
        try:
            self._schema, widened = self._syntax.join(self._schema, found)
        except ConflictError as error:
            raise self._conflict(block.slice(part.first, part.rows), head, error) from error
        for column in widened:
            if len(self.notes) < _NOTES:
                self.notes.append(
                    f"column {column.column!r}: {column.before} widened to {column.after} in {self._file.path}, "
                    f"rows {self._rows} to {self._rows + block.num_rows} (counted from 0)"
                )

    def _conflict(self, rows: RowBlock, head: Head, error: ConflictError) -> DataError:
        """Names the first row that conflicts: the shortest beginning of `rows` that does not join ends with it."""
        fine, wrong = 0, rows.num_rows
        while wrong - fine > 1:
            middle = (fine + wrong) // 2
            try:
                self._syntax.join(self._schema, self._syntax.infer(rows.slice(0, middle), head).schema)
                fine = middle
            except ConflictError as earlier:
                error, wrong = earlier, middle
        return DataError(
            f"{self._file.full}, {self._name(rows, wrong - 1).rpartition(', ')[2]}: column {error.column!r} is "
            f"{error.found} here and {error.expected} in the rows before. "
            "A column has one type: change this row, or write the column as text in all rows."
        )

    def _name(self, block: RowBlock, row: int) -> str:
        if self._syntax.by_line:
            return f"{self._file.path}, line {block.lines_of([row])[0]}"
        return f"{self._file.path}, row at byte {block.offset + int(block.starts[row])}"

    def _hopeless(self) -> DataError:
        return DataError(
            f"{self._file.full}: not one of its first {self._rows} rows can be read as what its name says. "
            f"The first: {self._first_bad}"
        )
