"""Real documents, made by hand: PDF with any letters, DOCX and PPTX as Office writes them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

_OFFICE = "http://schemas.openxmlformats.org"
_WORD = f"{_OFFICE}/wordprocessingml/2006/main"
_TYPES = f"{_OFFICE}/package/2006/content-types"
_RELATED = f"{_OFFICE}/package/2006/relationships"
_ROLES = f"{_OFFICE}/officeDocument/2006/relationships"


def pdf(
    pages: Sequence[Sequence[str | tuple[float, str]]], title: str = "", outline: Sequence[tuple[int, str, int]] = ()
) -> bytes:
    """A PDF whose pages hold these lines; its font maps codes to Unicode, as PDFs of today do.

    A line may have a size of its own. The outline's entries are depth, title and page, from 0.
    """
    codes: dict[str, int] = {}
    streams = []
    for lines in pages:
        shown = ["BT /F1 12 Tf 14 TL 50 800 Td"]
        for line in lines:
            size, letters = (12, line) if isinstance(line, str) else line
            text = "".join(f"{codes.setdefault(letter, len(codes) + 1):04x}" for letter in letters)
            shown.append(f"/F1 {size} Tf {size + 2} TL <{text}> Tj T*")
        streams.append("\n".join([*shown, "ET"]).encode())
    kids = " ".join(f"{7 + 2 * number} 0 R" for number in range(len(pages)))
    info = f"<< /Title <feff{title.encode('utf-16-be').hex()}> /Author (Somebody) >>"
    font = (
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Helvetica /DW 600 /CIDSystemInfo << /Registry (Adobe)"
        " /Ordering (Identity) /Supplement 0 >> /FontDescriptor << /Type /FontDescriptor /FontName /Helvetica /Flags 4"
        " /FontBBox [0 0 1000 1000] /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 >> >>"
    )
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {f'/Outlines {7 + 2 * len(pages)} 0 R' if outline else ''} >>".encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Helvetica /Encoding /Identity-H /DescendantFonts [4 0 R] %b >>"
        % b"/ToUnicode 5 0 R",
        font.encode(),
        _stream(_to_unicode(codes)),
        info.encode(),
    ]
    for stream in streams:
        page = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >>"
            f" /Contents {len(objects) + 2} 0 R >>"
        )
        objects += [page.encode(), _stream(stream)]
    return _file(objects + _outline(outline, len(objects) + 1))


def _outline(entries: Sequence[tuple[int, str, int]], first: int) -> list[bytes]:
    """The outline's objects, of which the first has this number; page n is object 7 + 2n."""
    if not entries:
        return []
    above = [
        max((other for other in range(number) if entries[other][0] < entries[number][0]), default=-1)
        for number in range(len(entries))
    ]
    objects = []
    for number in range(-1, len(entries)):
        below = [other for other, parent in enumerate(above) if parent == number]
        links = f"/First {first + 1 + below[0]} 0 R /Last {first + 1 + below[-1]} 0 R" if below else ""
        if number >= 0:
            _, title, page = entries[number]
            beside = [other for other, parent in enumerate(above) if parent == above[number]]
            place = beside.index(number)
            links += f" /Prev {first + 1 + beside[place - 1]} 0 R" if place else ""
            links += f" /Next {first + 1 + beside[place + 1]} 0 R" if place + 1 < len(beside) else ""
            links += f" /Parent {first + 1 + above[number]} 0 R /Dest [{7 + 2 * page} 0 R /Fit]"
            links += f" /Title <feff{title.encode('utf-16-be').hex()}>"
        objects.append(f"<< {links} >>".encode())
    return objects


def _stream(data: bytes) -> bytes:
    return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(data), data)


def _to_unicode(codes: dict[str, int]) -> bytes:
    items = [f"<{code:04x}> <{letter.encode('utf-16-be').hex()}>\n" for letter, code in codes.items()]
    blocks = "".join(
        f"{len(part)} beginbfchar\n{''.join(part)}endbfchar\n"
        for start in range(0, len(items), 100)
        if (part := items[start : start + 100])
    )
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapName /X def\n/CMapType 2 def\n"
        f"1 begincodespacerange\n<0000> <ffff>\nendcodespacerange\n{blocks}endcmap\n"
        "CMapName currentdict /CMap defineresource pop\nend\nend\n"
    ).encode()


def _file(objects: Sequence[bytes]) -> bytes:
    out = b"%PDF-1.7\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (size, table, size, len(out))
    )


def docx(blocks: Sequence[str | tuple[int, str] | list[list[str]]], title: str = "", raw: str = "") -> bytes:
    """A DOCX of paragraphs (text), headings (level, text) and tables (rows of cells); `raw` XML comes last."""
    body = "".join(
        _table(block) if isinstance(block, list) else _paragraph(*((0, block) if isinstance(block, str) else block))
        for block in blocks
    )
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{level}"><w:name w:val="heading {level}"/>'
        f'<w:pPr><w:outlineLvl w:val="{level - 1}"/></w:pPr></w:style>'
        for level in range(1, 7)
    )
    core = "http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    return _archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="rels" ContentType='
            '"application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType='
            f'"application/xml"/><Override PartName="/word/document.xml" ContentType="{word}.document.main+xml"/>'
            f'<Override PartName="/word/styles.xml" ContentType="{word}.styles+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{_RELATED}"><Relationship Id="a" Type="{_ROLES}/officeDocument"'
            f' Target="word/document.xml"/><Relationship Id="b" Type="{_RELATED}/metadata/core-properties"'
            ' Target="docProps/core.xml"/></Relationships>',
            "docProps/core.xml": f'<cp:coreProperties xmlns:cp="{core}" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<dc:title>{escape(title)}</dc:title><dc:creator>Somebody</dc:creator></cp:coreProperties>",
            "word/styles.xml": f'<w:styles xmlns:w="{_WORD}">{styles}</w:styles>',
            "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body>{body}{raw}</w:body></w:document>',
            "word/media/image1.png": "no picture",
        }
    )


def _paragraph(level: int, text: str) -> str:
    style = f'<w:pPr><w:pStyle w:val="Heading{level}"/></w:pPr>' if level else ""
    return f'<w:p>{style}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def _table(rows: list[list[str]]) -> str:
    cells = ("".join(f"<w:tc>{_paragraph(0, cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def pptx(slides: Sequence[tuple[str, str]]) -> bytes:
    """A PPTX of slides with a title and a body."""
    drawing, show = f"{_OFFICE}/drawingml/2006/main", f"{_OFFICE}/presentationml/2006/main"
    numbers = range(1, len(slides) + 1)
    related = "".join(
        f'<Relationship Id="s{number}" Type="{_ROLES}/slide" Target="slides/slide{number}.xml"/>' for number in numbers
    )
    listed = "".join(f'<p:sldId id="{255 + number}" r:id="s{number}"/>' for number in numbers)
    files = {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_RELATED}"><Relationship Id="a" Type="{_ROLES}/officeDocument"'
        ' Target="ppt/presentation.xml"/></Relationships>',
        "ppt/_rels/presentation.xml.rels": f'<Relationships xmlns="{_RELATED}">{related}</Relationships>',
        "ppt/presentation.xml": f'<p:presentation xmlns:p="{show}" xmlns:r="{_ROLES}"><p:sldIdLst>{listed}</p:sldIdLst>'
        "</p:presentation>",
    }
    for number, slide in enumerate(slides, 1):
        shapes = "".join(
            f'<p:sp><p:nvSpPr><p:cNvPr id="2" name="x"/><p:cNvSpPr/><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>'
            f"<p:spPr/><p:txBody><a:bodyPr/><a:p><a:r><a:t>{escape(text)}</a:t></a:r></a:p></p:txBody></p:sp>"
            for kind, text in zip(("title", "body"), slide, strict=True)
        )
        files[f"ppt/slides/slide{number}.xml"] = (
            f'<p:sld xmlns:p="{show}" xmlns:a="{drawing}"><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>'
        )
    return _archive(files)


def _archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>' if name.endswith((".xml", ".rels")) else ""
            archive.writestr(name, head + content)
    return out.getvalue()
