"""Every word of the web page, in English and Chinese. The browser's language decides."""

from __future__ import annotations

from babel import Locale, UnknownLocaleError

TEXTS = {
    "en": {
        "intro": "# Lip Sync\nGive it a video or a portrait, and new words: the person speaks them.",
        "consent": "**Only with the consent of the person shown.** Tell viewers that the video was made by a machine; "
        "every result also carries a machine-readable mark that says so.",
        "agree": "The person shown agrees to this video.",
        "need_consent": "Tick first that the person shown agrees to this video.",
        "logged_in": "Logged in as {name}",
        "logout": "Log out",
        "who": "## 1 · Who speaks",
        "portrait": "Portrait",
        "video": "Video",
        "example_portrait": "Use the example portrait",
        "faces": "Several faces in the first picture: choose who speaks.",
        "one_face": "The face that was found:",
        "face": "Who speaks in the result",
        "largest": "the largest face",
        "number": "face {number}",
        "no_face": "No face was found in the first picture. In a video it may still come later, and a drawn one is "
        "looked for again; else draw a box around its mouth below, and drawn mouths are laid there.",
        "mark": "Draw a box around the mouth",
        "marked": "the mouth in the box (drawn mouths)",
        "what": "## 2 · What is said",
        "sound": "Sound",
        "text": "Text",
        "text_label": "Text to speak",
        "text_hint": "Type what the person should say, or take an example below.",
        "example_sound": "Use the example sound",
        "sound_of_video": "Take the sound of a video",
        "no_sound": "That video has no sound; give another one.",
        "example_texts": "Examples",
        "language": "Language",
        "auto": "recognised",
        "voice": "Voice",
        "usual_voice": "the usual one",
        "voice_female": "female ({name})",
        "voice_male": "male ({name})",
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
        "result": "## Result",
        "cancel": "Cancel",
        "again": "Use these inputs again",
        "delete": "Delete",
        "again_done": "The inputs of that video are in the form again.",
        "again_gone": "The inputs of that video are no longer kept.",
        "before": "Before",
        "after": "After",
        "preview": "Preview: the first seconds",
        "soon": "The first seconds can be watched here soon.",
        "download": "Download",
        "history": "Earlier videos of this browser",
        "spoken_sound": "a recorded sound",
        "shown_picture": "the camera",
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
        "all_new": "Every picture has a new mouth.",
        "left_as_they_were": "{left} of {frames} pictures were left as they were: {reasons}.",
        "left_no_face": "{count} without a face",
        "left_too_small": "{count} with a face too small",
        "left_turned_away": "{count} turned away",
        "left_covered": "{count} covered",
        "left_outside_picture": "{count} partly outside the picture",
        "left_blurred": "{count} blurred",
        "left_unclear": "{count} unclear",
        "left_after_speech": "{count} after the end of the speech",
        "comma": ", ",
        "took": "It took {time}.",
        "in_english": "{sentence}",
        "away": "The server's queue does not answer; this page goes on asking.",
        "broken": "Something went wrong inside; the server's log says what.",
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
        "agree": "画面中的人同意制作这个视频。",
        "need_consent": "请先勾选：画面中的人同意制作这个视频。",
        "logged_in": "已登录：{name}",
        "logout": "退出登录",
        "who": "## 1 · 谁来说",
        "portrait": "照片",
        "video": "视频",
        "example_portrait": "使用示例照片",
        "faces": "第一帧里有几张脸：请选由谁来说。",
        "one_face": "找到的人脸：",
        "face": "结果里由谁来说",
        "largest": "最大的脸",
        "number": "第 {number} 张脸",
        "no_face": "第一帧里没有找到人脸。视频后面也许还会出现，画出来的脸会再找一次；"
        "还找不到时，请在下面的图上框住嘴，会贴上画好的嘴。",
        "mark": "请框住嘴",
        "marked": "框里的嘴（贴画好的嘴）",
        "what": "## 2 · 说什么",
        "sound": "声音",
        "text": "文字",
        "text_label": "要说的文字",
        "text_hint": "输入要说的话，或者点下面的示例。",
        "example_sound": "使用示例声音",
        "sound_of_video": "使用视频里的声音",
        "no_sound": "这个视频没有声音，请换一个。",
        "example_texts": "示例",
        "language": "语言",
        "auto": "自动识别",
        "voice": "嗓音",
        "usual_voice": "默认嗓音",
        "voice_female": "女声（{name}）",
        "voice_male": "男声（{name}）",
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
        "result": "## 结果",
        "cancel": "取消",
        "again": "再次使用这些素材",
        "delete": "删除",
        "again_done": "那个视频的素材已填回表单。",
        "again_gone": "那个视频的素材已不再保存。",
        "before": "之前",
        "after": "之后",
        "preview": "预览：开头几秒",
        "soon": "很快就可以在这里看到开头几秒。",
        "download": "下载",
        "history": "本浏览器以前的视频",
        "spoken_sound": "录下的声音",
        "shown_picture": "摄像头",
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
        "all_new": "每一帧都有新的嘴。",
        "left_as_they_were": "{frames} 帧里有 {left} 帧保持原样：{reasons}。",
        "left_no_face": "{count} 帧没有人脸",
        "left_too_small": "{count} 帧人脸太小",
        "left_turned_away": "{count} 帧转过脸",
        "left_covered": "{count} 帧被遮住",
        "left_outside_picture": "{count} 帧不在画面内",
        "left_blurred": "{count} 帧模糊",
        "left_unclear": "{count} 帧看不清",
        "left_after_speech": "{count} 帧话已说完",
        "comma": "、",
        "took": "用时{time}。",
        "in_english": "程序的说明（英文）：{sentence}",
        "away": "服务器的任务队列没有回应，本页会继续询问。",
        "broken": "服务器内部出错，详情在服务器的日志里。",
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

def language_for(accept_language: str | None) -> str:
    """The page's language, "en" or "zh", for a browser that sends this header Accept-Language."""
    first = (accept_language or "").split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"


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
