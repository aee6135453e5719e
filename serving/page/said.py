"""What the program says of its own accord, in the words of the page: refusals, failures, notes about a result.

The program's sentences are English. A Chinese page has them in Chinese. One that is not known here is introduced in
Chinese and then told as it is, so that nothing is lost.
"""

from __future__ import annotations

import re
from functools import cache

from babel import Locale

from serving.page.texts import TEXTS

# A pattern's groups go into the sentence; see `_in_chinese`.
_CHINESE = (
    # files
    (r"(.+) is empty .*", "{0}是空文件，请换一个能播放的文件。"),
    (r"(.+) is larger than (\S+) GB.*", "{0}大于 {1} GB，请换小一点的。"),
    (r"(.+) is longer than (\S+) s;.*", "{0}长于 {1} 秒，请剪短一些。"),
    (r"(.+) is too large \((\d+x\d+)\).*", "{0}太大（{1}），请缩小一些。"),
    (r"(.+) is too large; at most (\d+) pixels work.*", "{0}太大，最多 {1} 像素，请缩小一些。"),
    (r"(.+) is too small \((\d+x\d+)\).*", "{0}太小（{1}），请换大一点的。"),
    (r"(.+) is no video or sound that can be read.*", "{0}不是能读的文件，请用 MP4、MOV、MKV、WebM、WAV 或 JPG、PNG。"),
    (r"(.+) is a HEIC picture.*", "{0}是 HEIC 图片，无法读取，请存成 JPEG 或 PNG。"),
    (r"(.+) is damaged or cut off.*", "{0}损坏或不完整，请重新导出或重新上传。"),
    (r"(.+) holds more than (\d+) streams.*", "{0}里的轨道超过 {1} 条，请给只有画面和声音的文件。"),
    (r"(.+) needs more memory than there is.*", "{0}太大，内存不够，请换小一点的。"),
    (r"(.+) has no plain colours.*", "{0}的颜色格式无法使用，请存成 PNG 或 JPEG。"),
    (r"(.+) has no size;.*", "{0}没有尺寸，请重新导出。"),
    (r"(.+) has no video stream.*", "{0}里没有画面，请给一个视频或一张照片。"),
    (r"(.+) has no sound stream.*", "{0}里没有声音，请给一段有人说话的声音。"),
    (r"(.+) has zero length.*", "{0}的长度是零，请给一段有人说话的声音。"),
    (r"No picture of (.+) can be decoded.*", "{0}里的画面无法解码，请重新导出。"),
    (r"The colours of (.+) are stored as .*", "{0}的颜色格式无法保留，请用 BT.709 或 BT.2020 重新导出。"),
    (r"The pixels of (.+) are not square.*", "{0}的像素不是正方形，请重新导出。"),
    (r"The colours of (.+) are Dolby Vision .*", "{0}是不带标准画面的杜比视界，无法保留，请导出为 HDR10、HLG 或 SDR。"),
    (r"The pictures cannot be written as .*", "画面无法写入结果文件，请先用别的程序转换视频，或换一种格式。"),
    (r"There is no frame to write .*", "没有可以写入的画面，请给长一点的视频或声音。"),
    (r"The file is empty.*", "文件是空的，请换一个。"),
    (r"A file is wanted that was not uploaded here.*", "这个文件没有上传到这里，请先上传。"),
    # faces
    (r"No face can be used anywhere in the video \(frames: (.+?)\).*",
     "整个视频里没有能用的人脸（帧数：{0}）。请给一张正面、够大、没有遮挡的脸，或者选另一张脸。"),
    (r"No face can be used in the picture \(the frame is (.+?)\).*",
     "这张图里没有能用的人脸（{0}）。请给一张正面、够大、没有遮挡的脸，或者选另一张脸。"),
    (r"No face can be used .*", "没有能用的人脸。请给一张正面、够大、没有遮挡的脸，或者选另一张脸。"),
    (r"There is no face at the point .*", "那个位置没有人脸，请在图上选一张脸。"),
    (r"There is no face with .*", "没有这张脸，请从列表里选一张。"),
    (r"The face '(.+)' is not known.*", "没有“{0}”这样的人脸，请从列表里选。"),
    (r"No face was looked for: .*", "没有找人脸：嘴放在标出的位置，跟着周围的画面移动。"),
    (r"A face was found only with lowered limits.*", "放宽要求后才找到人脸（例如绘画、雕像或很远的人），请检查结果。"),
    (r"The box at \S+ lies outside of the picture \((\S+) px\).*", "框在画面（{0} 像素）之外，请重新画。"),
    (r"The box of '.+?' is too small.*", "框太小，请画大一点。"),
    (r"The box cannot be read.*", "框无法读取，请重新画。"),
    (r"No face is seen in the box.*", "框里没有人脸，无法在那里生成嘴；可以改用画好的嘴。"),
    (r".+ has no frame at (\S+) s;.*", "视频在 {0} 秒处没有画面，请选视频里的时间。"),
    (r"The face network .+ is missing.*", "这台服务器缺少人脸网络的文件，请管理员从仓库恢复。"),
    # texts and voices
    (r"The text holds nothing that can be spoken.*", "文字里没有可以说的内容，请至少写一个词。"),
    (r"The voice .+ finds nothing to speak.*", "这种语言的嗓音读不了这段文字，请检查语言。"),
    (r"The text is longer than (\d+) characters.*", "文字超过 {0} 个字符，请缩短。"),
    (r"The text takes longer than (\S+) s to speak.*", "这段文字要说 {0} 秒以上，请缩短。"),
    (r"The language '(.+?)' is not supported.*", "不支持语言“{0}”，请选列表里的语言。"),
    (r"There is no voice '(.+?)' for .*", "这种语言没有嗓音“{0}”，请选列表里的嗓音。"),
    (r"No voice is installed.*", "这台服务器没有安装嗓音，请给一段声音。"),
    (r"The speed (\S+) is out of range.*", "语速 {0} 超出范围，请用滑块选择。"),
    (r"Japanese text with kanji needs .*", "带汉字的日语需要词典：请重新安装 requirements.txt，或只用假名。"),
    (r"The natural voices are damaged.*", "自然嗓音的文件损坏，请管理员重新安装。"),
    (r"espeak-ng .*", "这台服务器的语音程序无法使用，请管理员重新安装 espeakng-loader。"),
    (r"The voice engine '(.+?)' .*", "嗓音引擎“{0}”无法使用，请管理员检查配置。"),
    (r"Subtitles \(srt\) need the words.*", "字幕需要文字，请给出声音里说的文字。"),
    (r"The sound \((\S+) s\) is too short for its text.*", "声音（{0} 秒）比文字短太多，请给声音里真正说的文字。"),
    (r"The subtitles \(\.(\w+)\) hold nothing.*", "字幕（{0}）里没有可以朗读的文字，请至少给一行。"),
    (r"The text looks like subtitles \(\.(\w+)\) .*", "这段文字像字幕（{0}），却无法读取，请检查格式。"),
    (r"The text file .*is larger than (\d+) MB.*", "文字文件大于 {0} MB，请换小一点的。"),
    (r"The text file .*is not UTF-8 text.*", "文字文件不是 UTF-8 编码，请存成 UTF-8。"),
    (r"Cannot read the text file.*", "文字文件无法读取，请再上传一次。"),
    (r"The file .*holds no subtitles that can be read.*", "文件里没有能读的字幕，请用 .srt、.vtt 或 .ass。"),
    (r"A still picture shows no movement.*", "静止的图片没有动作，请给一个视频、一段声音或文字。"),
    (r"A track is of the mouth that a video shows.*", "动作来自视频里的嘴，或者来自声音和文字：请只给其中一种。"),
    (r"Give a sound.* both, or a video.*", "请给一段声音或文字，或者一个视频。"),
    (r"This format holds words.*", "这种格式包含文字，请写出说的话。"),
    (r"This server cannot speak texts.*", "这台服务器不能把文字变成声音，请给一段声音。"),
    # settings
    (r"There is no engine '(.+?)'.*", "没有引擎“{0}”，请从列表里选。"),
    (r"The engine '?([\w-]+)'? (?:cannot be loaded|is not|may be used).*", "引擎“{0}”在这台服务器上不能用，请换一个。"),
    (r"The weights .*|The file .+ holds (?:no table of|something else than) tensors.*",
     "这个引擎的权重文件有问题，请换一个引擎，或联系管理员。"),
    (r"The (?:option|field) '?(\w+)'? (?:cannot be|must be).*", "设置“{0}”的值不能用，请换一个。"),
    (r"This server takes at most (\d+) steps.*", "这台服务器最多 {0} 步，请减少步数。"),
    (r"This server learns for at most (\S+) s.*", "这台服务器最多学习 {0} 秒，请缩短。"),
    (r"The time to adapt must be .*", "学习的时间超出范围，请缩短。"),
    # limits, space, connections
    (r"(\d+) jobs are waiting already.*", "已经有 {0} 个任务在排队，请稍后再试。"),
    (r"This key has (\d+) jobs that are not finished.*", "你有 {0} 个任务还没做完，请等其中一个完成。"),
    (r"This key keeps (\S+) GB of its (\S+) GB here.*",
     "你在这里已占用 {0} GB（上限 {1} GB），再多就放不下了；请删除不再需要的视频，或换小一点的文件。"),
    (r"More than (\d+) requests have come from you in a minute; wait (\d+) s.*",
     "一分钟内的请求超过 {0} 次，请等 {1} 秒。"),
    (r"(\d+) of your requests are being answered already.*", "你同时打开的连接超过 {0} 个，请关掉一些。"),
    (r"(\d+) requests are being answered already.*", "服务器正忙（{0} 个连接），请稍后再试。"),
    (r"The upload is larger than (\S+) GB.*", "上传的文件大于 {0} GB，请换小一点的。"),
    (r"The upload took too long.*", "上传太慢，请换更快的网络再试。"),
    (r"The (?:upload|request) was broken off.*", "上传中断了，请再试一次。"),
    (r"(?:The form has more than|A part of the form has|The field \S+ (?:was sent twice|is too|is not|takes)).*",
     "上传的表单无法使用，请重新打开本页。"),
    (r"Send the files as multipart.*", "请把文件作为表单上传。"),
    (r"That is no name and key.*", "这不是名称和密钥。"),
    (r"The form (?:ends in the middle|cannot be read).*", "上传不完整，请再试一次。"),
    (r"The request is no JSON.*", "请求无法读取，请重新打开本页。"),
    (r"The request is too large.*", "请求太大，请把文件作为上传发送。"),
    (r"There is not enough disk space.*", "服务器的磁盘空间不够，请稍后再试。"),
    (r"The disk (?:of the server )?is full.*", "服务器的磁盘满了，请稍后再试。"),
    (r"The job queue does not answer.*", "服务器的任务队列没有回应，请稍后再试。"),
    (r"The job is \w+ already.*", "任务已经结束，可以删除，不能取消。"),
    (r"The job cannot be tried again.*", "这个任务不能再试，请新建一个。"),
    (r"There is no such job.*", "没有这个任务，可能已过保存期。"),
    (r"There is no such file.*|The file has been deleted.*", "没有这个文件，可能已过保存期。"),
    (r"There is nothing here.*", "这里什么也没有。"),
    (r"There is no such name with this key.*", "名称与密钥不符。"),
    (r"Log in first.*", "请先登录：本页需要名称和 API 密钥。"),
    (r"Web pages of other sites may not use this.*", "其他网站的页面不能使用本服务。"),
    (r"This server does not answer to that name.*", "这台服务器不用这个名称，请检查网址。"),
    (r"Something went wrong inside.*|unexpected error.*", "服务器内部出错，详情在服务器的日志里。"),
    # failures
    (r"The job took longer than (\S+) s.*", "任务超过了 {0} 秒，请给短一点的视频或减少步数。"),
    (r"The job took its worker down (\d+) times.*", "任务失败了 {0} 次，已经放弃。"),
    (r"The job was cancelled.*", "任务已取消。"),
    (r"(?:The content|Content) credentials .*|Nothing can be signed .*",
     "内容凭证无法签名，请管理员检查服务器的设置。"),
    (r"The files of the job are gone.*", "任务的文件不见了，请重新提交。"),
    # notes
    (r"The size (\S+) became (\S+) \(.*", "尺寸由 {0} 变为 {1}（裁掉最后一行或一列）：播放器要求偶数。"),
    (r"The size (\S+) was brought to (\S+);.*", "尺寸由 {0} 缩为 {1}。"),
    (r"The result has (\S+) frames a second, .*", "结果是每秒 {0} 帧。"),
    (r"(\d+) frames were put in .*", "补了 {0} 帧（重复前一帧）：有人说话时，视频每秒的帧数太少，嘴动不起来。"),
    (r"The subtitles of the video were copied.*", "视频里的字幕原样保留，内容还是原来的话。"),
    (r"Subtitles that are pictures were not kept.*", "没有保留图片字幕。"),
    (r"Transparency was kept.*", "保留了透明部分。"),
    (r"The transparent parts show (.+?) \(.*", "透明部分填成了{0}。"),
    (r"The video is interlaced.*", "视频是隔行扫描的，已转为逐行。"),
    (r"Transparency was ignored.*", "透明部分没有保留。"),
    (r"HDR \((\w+)\) was kept: (\d+) bits.*", "保留了 HDR（{0}，{1} 位）。"),
    (r"(\d+) bits a colour became (\d+).*", "每种颜色由 {0} 位变为 {1} 位。"),
    (r"The light levels of the HDR picture .*", "HDR 的亮度信息没有保留。"),
    (r"The Dolby Vision data was left out.*", "没有保留杜比视界数据，保留了其下的画面。"),
    (r"The channels of .+ cancel each other.*", "声音的两个声道互相抵消（其中一个反相）：只用了最响的一个。"),
    (r"(.+) is silent throughout.*", "{0}全程无声：嘴保持静止。"),
    (r"The engine (\S+) was made for (\S+) frames a second; this video has (\S+)\.",
     "引擎 {0} 适合每秒 {1} 帧，这个视频是 {2} 帧。"),
    (r"The speaker cannot be told .*", "无法判断是谁在说话：选了最大的脸。"),
    (r"In (\d+) of (\d+) scenes with several faces the largest was taken.*",
     "{1} 个有多张脸的场景里，有 {0} 个选了最大的脸。"),
    (r"The mouth seems covered in (\d+) of (\d+) frames.*",
     "{1} 帧里有 {0} 帧的嘴好像被遮住，但整个视频都这样多半是误判，所以仍然生成了新的嘴。"),
    (r"The mouth seems covered throughout .+? \((\d+) frames\).*",
     "有的场景里嘴好像一直被遮住（{0} 帧），但整个场景都这样多半是误判，所以仍然生成了新的嘴。"),
    (r"The text is spoken as (.+?), by its script\.", "文字用{0}朗读（由文字种类判断）。"),
    (r"The text is spoken as (.+?), by its words \((\S+) sure\)\.", "文字用{0}朗读（由词语判断，把握 {1}）。"),
    (r"The text is spoken as (.+?), (?:though|the expected).*",
     "文字看不出是哪种语言，用{0}朗读；如果不对，请选择语言。"),
    (r"The line at (\S+) \((.+)\) ends (\S+) s after its time\.", "{0} 处的字幕 {1} 晚了 {2} 秒结束。"),
    (r"(\d+) more lines end after their time; the latest of all by (\S+) s\.",
     "另有 {0} 行晚于时间结束，最晚 {1} 秒。"),
    (r"Adaptation skipped: .*", "没有学习这个人：视频不适合。"),
    (r"Adapted in (\d+) s to (\d+) s of the person; .*", "用 {0} 秒学习了这个人的 {1} 秒画面。"),
)
_PARTS = {
    "white": "白色",
    "black": "黑色",
    "without a face": "没有人脸",
    "with a face too small": "人脸太小",
    "turned away": "转过脸",
    "partly outside the picture": "不在画面内",
    "covered": "被遮住",
    "between two scenes": "是两个场景的过渡",
    "blurred": "模糊",
    "unclear": "看不清",
    "after the end of the speech": "话已说完",
}


def told(sentence: str, language: str) -> str:
    """A sentence of the program as the page says it.

    Args:
        sentence: why something was refused, or a note; files are called video_file or video, audio_file or audio in it.
        language: of the page.
    """
    sentence = _with_our_words(sentence, language)
    if language != "zh":
        return sentence
    for pattern, translated in _CHINESE:
        if (match := re.fullmatch(pattern, sentence, re.DOTALL)) is not None:
            return translated.format(*map(_in_chinese, match.groups()))
    return TEXTS["zh"]["in_english"].format(sentence=sentence) if re.search("[A-Za-z]", sentence) else sentence


def _with_our_words(sentence: str, language: str) -> str:
    """The same with what the page calls the two files, and without what only other doors have."""
    for name in ("video", "audio"):
        words = TEXTS[language][f"{name}_file"]
        sentence = re.sub(rf" \({name}_file\)", "", sentence)
        sentence = re.sub(
            rf"^(?:The (?:(?:sound|picture) of|file|video|image|sound) )?{name}(?:_file)?(?:\.\w+)?\b(?! or)",
            words,
            sentence,
        )
        within = rf"^(No picture|The colours|The pixels|The channels) of {name}(?:_file)?(?:\.\w+)?\b"
        sentence = re.sub(within, rf"\1 of {words[0].lower()}{words[1:]}", sentence)
    sentence = re.sub(r" \(text_input\)| as text_input", "", sentence)
    sentence = re.sub(r"; if it is right, (?:--)?min[-_]confidence .*", ".", sentence)
    sentence = re.sub(r",? or lower (?:--)?min[-_]confidence", "", sentence)
    return re.sub(r"choose another one with (?:--)?face", "or choose another face", sentence)


def _in_chinese(group: str | None) -> str:
    """A part of a sentence: the name of a language, reasons why frames were left, or something without words."""
    for part, words in _PARTS.items():
        group = re.sub(rf"\b{part}\b", words, group or "")
    return _languages().get(group, group)


@cache
def _languages() -> dict[str, str]:
    """Names of languages, English -> Chinese."""
    chinese = Locale("zh").languages
    return {name: chinese[code] for code, name in Locale("en").languages.items() if code in chinese}
