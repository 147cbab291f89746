"""A figure as part of a page: in the colours of the page, with words for those who cannot see it, and no ids that clash."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from markupsafe import Markup, escape

from subnet_search.report.theme import themed

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ET.register_namespace("", SVG)
ET.register_namespace("xlink", XLINK)

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"'DejaVu Sans'(, sans-serif)?")


def inline_svg(content: bytes, name: str, alt: str) -> Markup:
    """Prepares an SVG of matplotlib for an HTML page.

    Args:
        content: The file.
        name: Name of the figure, unique in the page; it goes before all ids.
        alt: What the figure says.

    Returns:
        The `svg` element, which scales with the width of its place and needs nothing from outside.
    """
    root = ET.fromstring(content)
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    used = _references(root)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id" and value not in used:
                del element.attrib[key]
            elif key == "id":
                element.attrib[key] = f"{name}-{value}"
            elif key == f"{{{XLINK}}}href" and value.startswith("#"):
                element.attrib[key] = f"#{name}-{value[1:]}"
            else:
                element.attrib[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    text = _FONT.sub("'DejaVu Sans', sans-serif", ET.tostring(root, encoding="unicode"))
    described = f'<svg role="img" aria-label="{escape(alt)}"'
    return Markup(themed(text).replace("<svg", described, 1))  # what matplotlib draws is escaped, and so are the words


def _references(root: ET.Element) -> set[str]:
    """The ids that something in the drawing refers to."""
    used = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            used.update(_REFERENCE.findall(value))
            if key == f"{{{XLINK}}}href" and value.startswith("#"):
                used.add(value[1:])
    return used
