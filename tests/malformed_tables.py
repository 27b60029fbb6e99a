"""JSON arrays, CSV and Parquet files that are wrong."""

from __future__ import annotations

import io
import json

import pyarrow
import pyarrow.parquet
from malformed_case import ALL, ARRAY, ROWS, R, a_file, changed, parquet, trains


def _same_names() -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, ["query"] * 2), buffer)
    return buffer.getvalue()


JSON = [
    a_file("one object over several lines", "json", json.dumps(R, indent=2).encode(), "1 one-object"),
    a_file("objects over several lines", "json", json.dumps(R, indent=2).encode() * 2, "1 one-object"),
    a_file(
        "objects over several lines, called JSON lines", "jsonl", b'{\n"query": "a"\n}\n', "1 json", "2 json", "3 json"
    ),
    a_file("rows within an object", "json", b'{"data": ' + ARRAY + b"}", "1 columns"),
    a_file("columns instead of rows", "json", b'{"query": {"0": "a"}, "positive": {"0": "b"}}', "1 type"),
    a_file("a text", "json", b'"hello"', "1 json"),
    a_file("a comma after the last element", "json", ARRAY[:-1] + b",\n]", "2 array"),
    a_file("a comma before the first element", "json", b"[," + ARRAY[1:], "1 array"),
    a_file("two commas", "json", ARRAY.replace(b"}, {", b"},\n,{", 1), "2 array"),
    a_file(
        "no comma between elements",
        "json",
        b'[\n{"query": "a"}\n{"query": "b"},\n' + ARRAY[1:],
        "2 json",
        trains=ALL,
        rejected=('{"query": "a"} {"query": "b"}',),
    ),
    a_file("an array that is not closed", "json", b"[\n" + ARRAY[1:-1], "2 unfinished"),
    a_file("an array cut off in a row", "json", b"[\n" + ARRAY[1:-30], "2 unfinished"),
    a_file("an array cut off after a comma", "json", ARRAY[:-1] + b",", "1 unfinished"),
    a_file("an array closed twice", "json", ARRAY + b"\n]", "2 array"),
    a_file("two arrays", "json", ARRAY + b"\n" + ARRAY, "2 array"),
    a_file("a brace too many in an array", "json", ARRAY[:-1] + b"},\n" + ARRAY[1:], "1 array"),
    a_file(
        "a bracket for a brace",
        "json",
        b'[{"query": "a"],\n' + ARRAY[1:],
        "1 json",
        trains=ALL,
        rejected=('{"query": "a"]',),
    ),
    a_file("a text over two lines in an array", "json", b'[\n{"query": "a\nb"},\n' + ARRAY[1:], "2 array"),
    a_file("an array of arrays", "json", b"[" + ARRAY + b"]", "1 json"),
    a_file(
        "an array of null, a number and a text",
        "json",
        b'[null,\n1,\n"a",\n' + ARRAY[1:],
        "1 json",
        "2 json",
        "3 json",
        trains=ALL,
        rejected=("null", "1", '"a"'),
    ),
    a_file(
        "Latin-1 in an element",
        "json",
        b'[\n{"query":\n"\xe9"},\n' + ARRAY[1:],
        "3 utf-8",
        trains=ALL,
        rejected=('{"query":\n"\\xe9"}',),
    ),
    a_file(
        "a name twice in an element",
        "json",
        b'[\n{"query"\n:"a", "query":"b", "positive":"c"},\n' + ARRAY[1:],
        "2 name-twice",
        trains=ALL,
        rejected=('{"query" :"a", "query":"b", "positive":"c"}',),
    ),
    a_file("a byte order mark as an element", "json", b"[\n\xef\xbb\xbf,\n" + ARRAY[1:], "2 array"),
    a_file("100,000 opening brackets", "json", b"[" * 100_000, "1 unfinished"),
    trains("an array called JSON lines", "jsonl", ARRAY, "a JSON array, read as such"),
    trains("an array with a line end for each CR", "json", json.dumps(ROWS, indent=1).replace("\n", "\r").encode()),
]

CSV = [
    a_file("a quote that is never closed", "csv", b'query,positive\na,b\nc,"d\ne,f\n', "3 unfinished"),
    a_file(
        "a quote that closes in another row",
        "csv",
        b'query,positive\na,b\nc,"d\ne,"f"\ng,h\n',
        "3 csv-quotes",
        trains=[("a", ["b"]), ("g", ["h"])],
        rejected=('c,"d\ne,"f"\n',),
    ),
    a_file(
        "text after a quote",
        "csv",
        b'query,positive\n"a"b,c\nd,e\nf,g\n',
        "2 csv-quotes",
        trains=[("d", ["e"]), ("f", ["g"])],
        rejected=('"a"b,c\n',),
    ),
    a_file(
        "quotes escaped with a backslash",
        "csv",
        b'query,positive\n"say \\"a\\"",b\nd,e\nf,g\n',
        "2 csv-quotes",
        trains=[("d", ["e"]), ("f", ["g"])],
        rejected=('"say \\"a\\"",b\n',),
    ),
    a_file(
        "a space before a quote",
        "csv",
        b'query,positive\n"a", "b, c"\nd,e\nf,g\n',
        "2 csv-quotes",
        trains=[("d", ["e"]), ("f", ["g"])],
        rejected=('"a", "b, c"\n',),
    ),
    a_file("a space before a quote in the header", "csv", b'query, "positive"\na,b\n', "1 csv-quotes"),
    a_file(
        "spaces and a quote that are text",
        "csv",
        b'query,positive\n" ""a""",b\nd," ""e"""\n',
        trains=[(' "a"', ["b"]), ("d", [' "e"'])],
    ),
    a_file(
        "a row too short and one too long",
        "csv",
        b"query,positive\na\nb,c,d\ne,f\ng,h\n",
        "2 csv-fields",
        "3 csv-fields",
        trains=[("e", ["f"]), ("g", ["h"])],
        rejected=("a\n", "b,c,d\n"),
    ),
    a_file(
        "a bad row after one of several lines",
        "csv",
        b'query,positive\n"a\n\nb",c\n"  ",d\ne,f\n',
        "5 empty",
        trains=[("a\n\nb", ["c"]), ("e", ["f"])],
        rejected=({"query": "  ", "positive": "d"},),
    ),
    a_file(
        "an empty cell",
        "csv",
        b'query,positive\na,\n"",b\nc,d\ne,f\n',
        "2 missing",
        "3 missing",
        trains=[("c", ["d"]), ("e", ["f"])],
        rejected=({"query": "a", "positive": None}, {"query": None, "positive": "b"}),
    ),
    a_file("a column twice", "csv", b"query,positive,query\na,b,c\n", "1 csv-header"),
    a_file("a column without a name", "csv", b",query,positive\n0,a,b\n", "1 csv-header"),
    a_file("a comma at the end of each line", "csv", b"query,positive,\na,b,\n", "1 csv-header"),
    a_file("no header line", "csv", b"what is a?,b\nwhat is c?,d\n", "2 columns"),
    a_file("a header line only", "csv", b"query,positive\n\n", "1 empty"),
    a_file(
        "the header line once more",
        "csv",
        b"query,positive\na,b\n\xef\xbb\xbfquery,positive\nc,d\n",
        "3 csv-header",
        trains=[("a", ["b"]), ("c", ["d"])],
        rejected=("\ufeffquery,positive\n",),
    ),
    a_file("Excel's line on the delimiter", "csv", b"sep=;\nquery;positive\na;b\n", "1 csv-header"),
    a_file("commas in the header, semicolons in the rows", "csv", b"query,positive\na;b\n", "2 csv-fields"),
    a_file(
        "Latin-1 and NUL in cells",
        "csv",
        b"query,positive\na\0,b\ncaf\xe9,d\ne,f\ng,h\n",
        "2 nul",
        "3 utf-8",
        trains=[("e", ["f"]), ("g", ["h"])],
        rejected=("a\0,b\n", "caf\\xe9,d\n"),
    ),
    a_file("Latin-1 in the header", "csv", b"query,positive,stra\xdfe\na,b,c\n", "1 utf-8"),
    a_file(
        "CR within a cell without quotes",
        "csv",
        b"query,positive\na\rb,c\nd,e\nf,g\n",
        "2 csv-quotes",
        trains=[("d", ["e"]), ("f", ["g"])],
        rejected=("a\rb,c\n",),
    ),
    a_file(
        "a bad row that goes on in other lines",
        "csv",
        b'query,positive\na\rb,"c\nd,e\n",f\ng,h\ni,j\n',
        "2 csv-quotes",
        trains=[("g", ["h"]), ("i", ["j"])],
        rejected=('a\rb,"c\nd,e\n",f\n',),
    ),
    a_file("a bad row that goes on to the end", "csv", b'query,positive\na,b\nc\rd,"e\nf,g\nh,i\n', "3 unfinished"),
    a_file(
        "lines that end with CR, in CSV",
        "csv",
        b"query,positive\ra,b\r,c\rd,e\r",
        "3 missing",
        trains=[("a", ["b"]), ("d", ["e"])],
        rejected=({"query": None, "positive": "c"},),
    ),
    a_file(
        "a list as Python writes it",
        "csv",
        b"query,positive\na,\"['b', 'c']\"\nd,e\n",
        trains=[("a", ["['b', 'c']"]), ("d", ["e"])],
        note='cells of "positive" from line 2 on look like lists',
    ),
    a_file(
        "a cell of five megabytes",
        "csv",
        b"query,positive\na,b\nc," + b"d" * 5_000_000 + b"\n",
        trains=[("a", ["b"]), ("c", ["d" * 5_000_000])],
    ),
    a_file(
        "blank lines in CSV",
        "csv",
        b"\n\nquery,positive\n\n \na,b\n\n\n,c\nd,e\n",
        "9 missing",
        trains=[("a", ["b"]), ("d", ["e"])],
        rejected=({"query": None, "positive": "c"},),
    ),
    a_file("spaces instead of tabs", "tsv", b"query  positive\na  b\n", "2 columns"),
    a_file("commas in a TSV file", "tsv", b"query,positive\na,b\n", "2 columns"),
    a_file(
        "a quote within a TSV cell",
        "tsv",
        b'query\tpositive\na 5" disk\tb\nc\td\n',
        trains=[('a 5" disk', ["b"]), ("c", ["d"])],
    ),
    a_file(
        "a quoted word at the start of a TSV cell",
        "tsv",
        b'query\tpositive\n"a" b\tc\nd\te\nf\tg\n',
        "2 csv-quotes",
        trains=[("d", ["e"]), ("f", ["g"])],
        rejected=('"a" b\tc\n',),
    ),
]

PARQUET = [
    a_file("Parquet without rows", "parquet", parquet({"query": pyarrow.array([], pyarrow.string())}), "1 empty"),
    a_file("Parquet cut off", "parquet", parquet({"query": ["a"] * 99, "positive": ["b"] * 99})[:-20], "1 parquet"),
    a_file("Parquet without its head", "parquet", parquet({"query": ["a"]})[4:], "1 container"),
    a_file("Parquet's first bytes only", "parquet", b"PAR1", "1 parquet"),
    a_file("Parquet with a damaged table of contents", "parquet", changed(parquet({"query": ["a"]}), -9), "1 parquet"),
    a_file("Parquet with two columns of one name", "parquet", _same_names(), "1 parquet"),
    a_file(
        "Parquet with bytes that are no UTF-8",
        "parquet",
        parquet({"query": ["a", "c"], "positive": [b"b", b"caf\xe9"]}),
        "2 surrogate",
    ),
    a_file(
        "Parquet with texts that are no UTF-8",
        "parquet",
        parquet({"query": pyarrow.array([b"a", b"\xe9", b"c"]).view(pyarrow.string()), "positive": ["d", "e", "f"]}),
        "2 parquet",
        trains=[("a", ["d"]), ("c", ["f"])],
        rejected=("",),
    ),
    a_file(
        "Parquet with null",
        "parquet",
        parquet({"query": ["a", None, "c"], "positive": ["d", "e", "f"]}),
        "2 missing",
        trains=[("a", ["d"]), ("c", ["f"])],
        rejected=({"query": None, "positive": "e"},),
    ),
    a_file(
        "Parquet with columns that are no format", "parquet", parquet({"question": ["a"], "answer": ["b"]}), "1 columns"
    ),
    a_file(
        "Parquet with decimals for scores",
        "parquet",
        parquet({"sentence1": ["a"], "sentence2": ["b"], "score": pyarrow.array([1], pyarrow.decimal128(3, 2))}),
        "1 score-type",
    ),
    a_file(
        "Parquet with NaN for a score",
        "parquet",
        parquet({"sentence1": ["a", "c", "e"], "sentence2": ["b", "d", "f"], "score": [0.9, float("nan"), 1.0]}),
        "2 score-type",
        trains=[("a", ["b"]), ("e", ["f"])],
    ),
    a_file("Parquet with whole numbers for texts", "parquet", parquet({"query": [1], "positive": ["b"]}), "1 type"),
]

TABLES = [*JSON, *CSV, *PARQUET]
