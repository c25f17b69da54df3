"""What a page says of pictures and texts that were looked for by each other, in both languages."""

from __future__ import annotations

from mingshi.report.both import Both

PICTURED: dict[str, Both] = {
    "pictured.title": Both("Pictures and texts", "图像与文本"),
    "pictured.note": Both(
        "Queries evenly spread over the rows, so not chosen by what they found, each with the nearest of the whole "
        "gallery. The number is the cosine similarity; a frame marks the query's own.",
        "查询在各行中等距选取，与检索结果好坏无关；右侧是整个候选库中最接近的几项。数字是余弦相似度，带框的是查询自身的配对。",
    ),
    "pictured.texts": Both("Texts found by a picture", "以图找文"),
    "pictured.pictures": Both("Pictures found by a text", "以文找图"),
    "pictured.right": Both("its own", "自身配对"),
    "pictured.map": Both("How near pictures (rows) and texts (columns) are", "图像（行）与文本（列）的相似度"),
    "pictured.own": Both("belong together", "属于一对"),
    "pictured.others": Both("do not", "不属于一对"),
    "pictured.scale": Both("The palest is {low}, the darkest {high}.", "最浅为 {low}，最深为 {high}。"),
    "pictured.picture": Both("Picture of", "图像"),
}
