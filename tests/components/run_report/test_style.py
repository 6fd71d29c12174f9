"""Figures as elements of a page."""

from components.report import style


def test_coordinates_are_rounded_and_what_is_read_is_not():
    svg = '<svg viewBox="0 0 9 9"><path d="M 1.23456 2"/><text x="7.65432">0.0031</text></svg>'
    inlined = style._inline(svg, "name", "A small rate")
    assert 'd="M 1.23 2"' in inlined
    assert '<text x="7.65">0.0031</text>' in inlined
