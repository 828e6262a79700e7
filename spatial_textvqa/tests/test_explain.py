"""Edges are those of the strongest heads and of the graph; the picture is XML whatever a sign says."""

from __future__ import annotations

from xml.etree import ElementTree

import torch
from spatial_textvqa.explain import Drawn, Edge, edges_of, embedded, sentence, strongest, svg
from spatial_textvqa.picture import Picture, Thing, Word
from spatial_textvqa.spatial_graph import relations

DOOR, EXIT, OPEN = (40.0, 10.0, 60.0, 40.0), (45.0, 20.0, 55.0, 25.0), (5.0, 20.0, 25.0, 25.0)
PICTURE = Picture("street", 100, 50, [Word("EXIT", EXIT), Word("open", OPEN)], [Thing(DOOR, "door")])
TAG = "{http://www.w3.org/2000/svg}"


def graph() -> torch.Tensor:
    return relations(torch.from_numpy(PICTURE.boxes([*PICTURE.objects, *PICTURE.words])))


def test_an_edge_has_the_relation_of_who_looks_to_who_is_looked_at() -> None:
    attention = torch.zeros(2, 3, 3)
    attention[0, 1, 0], attention[1, 1, 0], attention[1, 2, 0], attention[0, 0, 0] = 0.2, 0.7, 0.9, 1.0
    valid = torch.ones(3, dtype=torch.bool)
    first, second = edges_of(attention, graph(), valid, layer=4)
    assert (first.source, first.target, first.head, first.layer) == (2, 0, 1, 4)
    assert sentence(first, PICTURE).startswith("“open” left, slightly ")
    assert sentence(first, PICTURE).endswith(", of door")
    assert (second.source, second.head, round(second.weight, 6)) == (1, 1, 0.7)
    assert sentence(second, PICTURE) == "“EXIT” inside door"
    assert edges_of(attention, graph(), valid, 4, sources=[1]) == [second]
    valid[2] = False
    assert edges_of(attention, graph(), valid, 4) == [second]


def test_the_strongest_over_layers_has_each_pair_once() -> None:
    edges = [Edge(0, 1, 4, 0.5, 2, 3), Edge(0, 1, 4, 0.6, 3, 1), Edge(1, 0, 8, 0.1, 2, 0), Edge(2, 0, 8, 0.3, 2, 0)]
    assert strongest(edges, 2) == [edges[1], edges[3]]


def test_the_picture_has_every_box_the_answer_and_the_edges() -> None:
    edge = Edge(1, 0, 2, 0.8, 3, 1)
    root = ElementTree.fromstring(svg(PICTURE, Drawn("what is written on the door?", "exit", [1], [edge])))
    assert len(root.findall(f"{TAG}g[@class='entity']")) == 3
    assert "".join(root.find(f"{TAG}g[@class='answer']").itertext()) == "“EXIT”"  # type: ignore[union-attr]
    (drawn,) = root.findall(f"{TAG}g[@class='edge']")
    assert drawn.attrib["data-layer"] == "3"
    assert drawn.findtext(f"{TAG}text") == "1: inside"
    assert drawn.findtext(f"{TAG}title") == "“EXIT” inside door: 0.80, layer 4, head 2"
    line = drawn.find(f"{TAG}line")
    assert line is not None
    assert [float(line.attrib[k]) for k in ("x1", "y1", "x2", "y2")] == [400.0, 180.0, 400.0, 200.0]  # 8 units a pixel


def test_what_a_sign_says_is_text() -> None:
    words = [Word('</text><script>alert("1")</script>', EXIT), Word("\x00\x0b\ud800\uffff", OPEN)]
    drawn = Drawn("<b>what</b>\x01?", "&amp;", [0])
    root = ElementTree.fromstring(svg(Picture("x", 100, 50, words), drawn, embedded('data:"><script>', PICTURE)))
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    assert "<b>what</b> ?" in "".join(root.itertext())


def test_a_picture_without_anything() -> None:
    root = ElementTree.fromstring(svg(Picture("blank", 50, 500), Drawn("what?", "")))
    assert root.attrib["viewBox"] == "0 0 420.0 864.0"
    assert "(nothing)" in "".join(root.itertext())
