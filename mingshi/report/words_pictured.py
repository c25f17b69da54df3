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
    "metric.imagetotextr1": Both("a picture's text is found first", "以图找文：首位命中率"),
    "metric.imagetotextr5": Both("a picture's text is among the first 5", "以图找文：前 5 命中率"),
    "metric.imagetotextr10": Both("a picture's text is among the first 10", "以图找文：前 10 命中率"),
    "metric.imagetotextmrr": Both("reciprocal rank of a picture's text", "以图找文：平均倒数排名"),
    "metric.imagetotextmedianrank": Both("median rank of a picture's text", "以图找文：排名中位数"),
    "metric.texttoimager1": Both("a text's picture is found first", "以文找图：首位命中率"),
    "metric.texttoimager5": Both("a text's picture is among the first 5", "以文找图：前 5 命中率"),
    "metric.texttoimager10": Both("a text's picture is among the first 10", "以文找图：前 10 命中率"),
    "metric.texttoimagemrr": Both("reciprocal rank of a text's picture", "以文找图：平均倒数排名"),
    "metric.texttoimagemedianrank": Both("median rank of a text's picture", "以文找图：排名中位数"),
    "metric.galleryimages": Both("pictures to be found", "候选图像数"),
    "metric.gallerytexts": Both("texts to be found", "候选文本数"),
    "metric.accuracytop5": Both("accuracy within the first 5", "前 5 准确率"),
    "metric.majority": Both("share of the commonest class", "最常见类别的占比"),
}
