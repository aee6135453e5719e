"""Every word of the web page, in English and Chinese. The browser's language decides."""

from __future__ import annotations

import re

from babel import Locale, UnknownLocaleError

TEXTS = {
    "en": {
        "intro": "# Lip Sync\nGive it a video or a portrait, and new words: the person speaks them.",
        "consent": "**Only with the consent of the person shown.** Tell viewers that the video was made by a machine; "
        "every result also carries a machine-readable mark that says so.",
        "who": "## 1 · Who speaks",
        "portrait": "Portrait",
        "video": "Video",
        "example_portrait": "Use the example portrait",
        "faces": "Several faces in the first picture: choose who speaks.",
        "one_face": "The face that was found:",
        "face": "Who speaks in the result",
        "largest": "the largest face",
        "number": "face {number}",
        "no_face": "No face was found in the first picture. In a video it may still come later; a portrait must show "
        "one from the front.",
        "what": "## 2 · What is said",
        "sound": "Sound",
        "text": "Text",
        "text_label": "Text to speak",
        "text_hint": "Type what the person should say, or take an example below.",
        "example_sound": "Use the example sound",
        "example_texts": "Examples",
        "language": "Language",
        "auto": "recognised",
        "voice": "Voice",
        "usual_voice": "the usual one",
        "speed": "Speed (1 is usual)",
        "more": "More settings",
        "adapt": "First learn from the video and its own sound how this person speaks (up to a minute more)",
        "steps": "Steps (more are finer and slower; 0: as usual)",
        "engine": "Engine (what draws the mouth)",
        "usual_engine": "the usual one",
        "fit": "If the speech is longer than the video",
        "fit_bounce": "play the video back and forth",
        "fit_loop": "play it again from the start",
        "fit_freeze": "hold the last picture",
        "fit_cut": "end with the video",
        "rest": "If the video is longer than the speech",
        "rest_still": "the mouth rests to the end",
        "rest_keep": "keep the rest as it is, with its lips moving",
        "rest_cut": "end with the speech",
        "make": "Make the video",
        "result": "## 3 · Result",
        "cancel": "Cancel",
        "before": "Before",
        "after": "After",
        "preview": "Preview: the first seconds",
        "soon": "The first seconds can be watched here soon.",
        "download": "Download",
        "history": "Earlier videos of this browser",
        "spoken_sound": "a sound",
        "now": "just now",
        "minutes_ago": "{count} min ago",
        "hours_ago": "{count} h ago",
        "idle": "Nothing to do yet.",
        "starting": "The program is starting and loads its networks; your video comes next.",
        "queued": "Waiting; {position} other videos come first.",
        "next": "Waiting; this video comes next.",
        "listening": "Listening to the sound and looking for the face …",
        "learning": "Learning how this person speaks …",
        "running": "Making the video …",
        "percent": "{percent} %",
        "fps": "{fps:.1f} pictures per second",
        "left": "{time} left",
        "minutes": "about {minutes} min {seconds} s",
        "seconds": "about {seconds} s",
        "done": "Done: {frames} pictures.",
        "failed": "It did not work. {error}",
        "cancelled": "Cancelled; its files are deleted.",
        "expired": "The result is no longer kept.",
        "gone": "That video is no longer known.",
        "state_queued": "waiting",
        "state_running": "in work",
        "state_done": "done",
        "state_failed": "failed",
        "state_cancelled": "cancelled",
        "state_expired": "deleted",
        "closing": "You may close this page: the work goes on, and you find the result here again.",
        "spoken_script": "The text is spoken as {language}.",
        "spoken_words": "The text is spoken as {language} ({certainty} sure).",
        "spoken_open": "The text does not tell its language: it is spoken as {language}. If that is wrong, choose.",
        "need_video": "Give a portrait or a video first (step 1).",
        "need_speech": "Give a sound, or type a text (step 2).",
        "video_file": "The portrait or video",
        "audio_file": "The sound",
        "login": "Log in",
        "login_name": "Name",
        "login_key": "API key",
        "login_enter": "Log in",
        "login_refused": "There is no such name with this key.",
    },
    "zh": {
        "intro": "# 口型同步\n给一段视频或一张照片，再给新的话：画面里的人就会说出来。",
        "consent": "**只能在画面中的人同意的情况下使用。** 请告诉观众视频由机器生成；"
        "每个结果也带有机器可读的合成标记。",
        "who": "## 1 · 谁来说",
        "portrait": "照片",
        "video": "视频",
        "example_portrait": "使用示例照片",
        "faces": "第一帧里有几张脸：请选由谁来说。",
        "one_face": "找到的人脸：",
        "face": "结果里由谁来说",
        "largest": "最大的脸",
        "number": "第 {number} 张脸",
        "no_face": "第一帧里没有找到人脸。视频后面也许还会出现；照片必须有正面的人脸。",
        "what": "## 2 · 说什么",
        "sound": "声音",
        "text": "文字",
        "text_label": "要说的文字",
        "text_hint": "输入要说的话，或者点下面的示例。",
        "example_sound": "使用示例声音",
        "example_texts": "示例",
        "language": "语言",
        "auto": "自动识别",
        "voice": "嗓音",
        "usual_voice": "默认嗓音",
        "speed": "语速（1 为正常）",
        "more": "更多设置",
        "adapt": "先从视频和它的原声里学习这个人怎么说话（最多多用一分钟）",
        "steps": "步数（越多越细，也越慢；0：默认）",
        "engine": "引擎（由谁来画嘴）",
        "usual_engine": "默认",
        "fit": "话比视频长时",
        "fit_bounce": "视频来回播放",
        "fit_loop": "视频从头再播放",
        "fit_freeze": "停在最后一帧",
        "fit_cut": "随视频结束",
        "rest": "视频比话长时",
        "rest_still": "嘴保持静止直到结尾",
        "rest_keep": "保留其余部分不变（嘴唇照常动）",
        "rest_cut": "随话结束",
        "make": "生成视频",
        "result": "## 3 · 结果",
        "cancel": "取消",
        "before": "之前",
        "after": "之后",
        "preview": "预览：开头几秒",
        "soon": "很快就可以在这里看到开头几秒。",
        "download": "下载",
        "history": "本浏览器以前的视频",
        "spoken_sound": "一段声音",
        "now": "刚刚",
        "minutes_ago": "{count} 分钟前",
        "hours_ago": "{count} 小时前",
        "idle": "还没有任务。",
        "starting": "程序正在启动并加载网络，接下来就处理你的视频。",
        "queued": "排队中，前面还有 {position} 个视频。",
        "next": "排队中，下一个就是它。",
        "listening": "正在听声音、找人脸……",
        "learning": "正在学习这个人怎么说话……",
        "running": "正在生成视频……",
        "percent": "{percent} %",
        "fps": "每秒 {fps:.1f} 帧",
        "left": "还要{time}",
        "minutes": "大约 {minutes} 分 {seconds} 秒",
        "seconds": "大约 {seconds} 秒",
        "done": "完成：共 {frames} 帧。",
        "failed": "没有成功。{error}",
        "cancelled": "已取消，文件已删除。",
        "expired": "结果已过保存期。",
        "gone": "找不到这个视频了。",
        "state_queued": "排队中",
        "state_running": "进行中",
        "state_done": "完成",
        "state_failed": "失败",
        "state_cancelled": "已取消",
        "state_expired": "已删除",
        "closing": "可以关掉本页：任务会继续，之后还能在这里找到结果。",
        "spoken_script": "文字将用{language}朗读。",
        "spoken_words": "文字将用{language}朗读（把握 {certainty}）。",
        "spoken_open": "文字太短，看不出是哪种语言：将用{language}朗读。如果不对，请选择语言。",
        "need_video": "请先给一张照片或一个视频（第 1 步）。",
        "need_speech": "请给一段声音，或输入文字（第 2 步）。",
        "video_file": "照片或视频",
        "audio_file": "声音",
        "login": "登录",
        "login_name": "名称",
        "login_key": "API 密钥",
        "login_enter": "登录",
        "login_refused": "名称与密钥不符。",
    },
}

EXAMPLE_TEXTS = {
    "en": "Hello! It is a pleasure to meet you. How can I help you today?",
    "zh": "你好，很高兴认识你。今天天气真好，我们一起去公园走走吧。",
    "ja": "こんにちは。お会いできてうれしいです。今日はいい天気ですね。",
    "fr": "Bonjour ! Je suis ravi de vous rencontrer. Comment allez-vous aujourd'hui ?",
    "de": "Guten Tag, schön, dass Sie da sind. Was kann ich heute für Sie tun?",
    "es": "¡Hola! Me alegro mucho de conocerte. ¿Qué tal estás hoy?",
}
"""Language -> something to say in it."""

# What the program refuses, in Chinese; a pattern's groups go into the sentence. What matches nothing stays English.
_REFUSALS_ZH = (
    (r"(.+) is empty .*", "{0}是空文件，请换一个能播放的文件。"),
    (r"(.+) is larger than (\S+) GB.*", "{0}大于 {1} GB，请换小一点的。"),
    (r"(.+) is longer than (\S+) s;.*", "{0}长于 {1} 秒，请剪短一些。"),
    (r"(.+) is too large \((\d+x\d+)\).*", "{0}太大（{1}），请缩小一些。"),
    (r"(.+) is no video or sound that can be read.*", "{0}不是能读的文件，请用 MP4、MOV、MKV、WebM、WAV 或 JPG、PNG。"),
    (r"(.+) is damaged or cut off.*", "{0}损坏或不完整，请重新导出或重新上传。"),
    (r"(.+) has no video stream.*", "{0}里没有画面，请给一个视频或一张照片。"),
    (r"(.+) has no sound stream.*", "{0}里没有声音，请给一段有人说话的声音。"),
    (r"(.+) has zero length.*", "{0}的长度是零，请给一段有人说话的声音。"),
    (r"No picture of (.+) can be decoded.*", "{0}里的画面无法解码，请重新导出。"),
    (r"No face can be used anywhere.*", "整个视频里没有能用的人脸。请给一张正面、够大、没有遮挡的脸，或者选另一张脸。"),
    (r"The text holds nothing that can be spoken.*", "文字里没有可以说的内容，请至少写一个词。"),
    (r"The voice .+ finds nothing to speak.*", "这种语言的嗓音读不了这段文字，请检查语言。"),
    (r"The text is longer than (\d+) characters.*", "文字超过 {0} 个字符，请缩短。"),
    (r"The text takes longer than (\S+) s to speak.*", "这段文字要说 {0} 秒以上，请缩短。"),
    (r"The language '(.+?)' is not supported.*", "不支持语言“{0}”，请选列表里的语言。"),
    (r"There is no voice '(.+?)' for .*", "这种语言没有嗓音“{0}”，请选列表里的嗓音。"),
    (r"Japanese text with kanji needs .*", "带汉字的日语需要词典：请重新安装 requirements.txt，或只用假名。"),
    (r"The subtitles \(\.(\w+)\) hold nothing.*", "字幕（{0}）里没有可以朗读的文字，请至少给一行。"),
    (r"The text looks like subtitles \(\.(\w+)\) .*", "这段文字像字幕（{0}），却无法读取，请检查格式。"),
    (r"(\d+) jobs are waiting already.*", "已经有 {0} 个任务在排队，请稍后再试。"),
    (r"This key has (\d+) jobs that are not finished.*", "你有 {0} 个任务还没做完，请等其中一个完成。"),
    (r"The upload is larger than (\S+) GB.*", "上传的文件大于 {0} GB，请换小一点的。"),
    (r"The upload took too long.*", "上传太慢，请换更快的网络再试。"),
    (r"The upload was broken off.*", "上传中断了，请再试一次。"),
    (r"The file is empty.*", "文件是空的，请换一个。"),
    (r"There is not enough disk space.*", "服务器的磁盘空间不够，请稍后再试。"),
    (r"The disk of the server is full.*", "服务器的磁盘满了，请稍后再试。"),
    (r"The job took longer than (\S+) s.*", "任务超过了 {0} 秒，请给短一点的视频或减少步数。"),
    (r"The job took its worker down (\d+) times.*", "任务失败了 {0} 次，已经放弃。"),
    (r"This server cannot speak texts.*", "这台服务器不能把文字变成声音，请给一段声音。"),
)


def language_for(accept_language: str | None) -> str:
    """The page's language, "en" or "zh", for a browser that sends this header Accept-Language."""
    first = (accept_language or "").split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"


def refusal(sentence: str, language: str) -> str:
    """A sentence of the program as the page says it.

    Args:
        sentence: why something was refused; files are called video_file or video, audio_file or audio in it.
        language: of the page.
    """
    for name in ("video", "audio"):
        words = TEXTS[language][f"{name}_file"]
        sentence = re.sub(rf" \({name}_file\)", "", sentence)
        sentence = re.sub(rf"^The (?:(?:sound|picture) of|file|video|image|sound) {name}(?:_file)?\b", words, sentence)
        sentence = re.sub(rf"^No picture of {name}(?:_file)?\b", f"No picture of {words.lower()}", sentence)
    sentence = sentence.replace("another one with face", "another face")
    if language == "zh":
        for pattern, translated in _REFUSALS_ZH:
            if (match := re.fullmatch(pattern, sentence, re.DOTALL)) is not None:
                return translated.format(*match.groups())
    return sentence


def duration(seconds: float, words: dict[str, str]) -> str:
    """A time to wait in words, coarser the longer it is."""
    if seconds < 60:
        return words["seconds"].format(seconds=max(1, round(seconds)))
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    return words["minutes"].format(minutes=minutes, seconds=rest)


def ago(seconds: float, words: dict[str, str]) -> str:
    """How long something is past, in words."""
    if seconds < 60:
        return words["now"]
    if seconds < 3600:
        return words["minutes_ago"].format(count=int(seconds / 60))
    return words["hours_ago"].format(count=int(seconds / 3600))


def taken_language(code: str, by: str, certainty: float, language: str) -> str:
    """Which language a text is spoken in.

    Args:
        code: that language.
        by: what told it, see `voices.detection.Detected`.
        certainty: how surely, 0 to 1.
        language: of the page.
    """
    words = TEXTS[language]["spoken_" + (by if by in ("script", "words") else "open")]
    return words.format(language=name_of(code, language), certainty=f"{certainty:.0%}")


def name_of(code: str, language: str) -> str:
    """The name of a spoken language, in the page's language; its code where there is no name."""
    try:
        return Locale.parse(code, sep="-").get_display_name(language) or code
    except (UnknownLocaleError, ValueError):
        return code
