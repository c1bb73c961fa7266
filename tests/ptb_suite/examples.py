"""PTB's own example bots, unmodified, on six processes: each holds its conversation, and again with a process killed.

    python -m tests.ptb_suite.examples [name …]

They come with the source distribution of the installed version, which pip fetches into a temporary directory. Nothing
of it is kept. Exit code 1: one of them said something else than it does in a single process.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.conftest import Server
from tests.e2e.conftest import Stack
from tests.e2e.talk import Talk
from tests.e2e.test_conversations import change_of_member, newest_poll
from tests.ptb_suite.__main__ import fetch

DEVELOPER = 999

Script = Callable[[Talk], Awaitable[None]]


async def hears(talk: Talk, *words: str) -> None:
    """The next things said, each with these words somewhere in it."""
    await talk.hears(*[f"(?s).*{re.escape(word)}.*" for word in words])


async def ask(talk: Talk, text: str, *words: str) -> None:
    await talk.say(text)
    await hears(talk, *words)


async def press(talk: Talk, button: str, *words: str) -> None:
    await talk.press(button)
    await hears(talk, *words)


async def echobot(talk: Talk) -> None:
    await ask(talk, "/start", "Hi")
    await ask(talk, "/help", "Help!")
    for number in range(5):
        await ask(talk, f"word {number}", f"word {number}")


async def conversationbot(talk: Talk) -> None:
    await ask(talk, "/start", "boy or a girl")
    await ask(talk, "Other", "/skip")
    await ask(talk, "/skip", "location")
    await talk.show(location={"latitude": 52.5, "longitude": 13.4})
    await hears(talk, "visit you")
    await ask(talk, "I am a test.", "Thank you")
    await ask(talk, "/start", "boy or a girl")
    await ask(talk, "/cancel", "Bye")


async def conversationbot2(talk: Talk) -> None:
    await ask(talk, "/start", "Doctor Botter")
    await ask(talk, "Age", "Your age?")
    await ask(talk, "7", "Age - 7")
    await ask(talk, "Something else...", "category first")
    await ask(talk, "Shoe size", "Your shoe size?")
    await ask(talk, "40", "Shoe size - 40")
    await ask(talk, "Done", "Age - 7")


async def persistentconversationbot(talk: Talk) -> None:
    await ask(talk, "/start", "Doctor Botter")
    await ask(talk, "Age", "Your age?")
    await ask(talk, "7", "age - 7")
    await ask(talk, "/show_data", "age - 7")
    await ask(talk, "Done", "age - 7")
    await ask(talk, "/start", "age")
    await ask(talk, "Age", "already know the following about that: 7")


async def nestedconversationbot(talk: Talk) -> None:
    await ask(talk, "/start", "Family Bot", "You may choose")
    await press(talk, "Add yourself", "tell me about yourself")
    await press(talk, "Add info", "select a feature")
    await press(talk, "Name", "Okay, tell me")
    await ask(talk, "Ada", "Got it!")
    await press(talk, "Done", "You may choose")
    await press(talk, "Add family member", "add a parent or a child")
    await press(talk, "Add child", "whom to add")
    await press(talk, "Add Sister", "select a feature")
    await press(talk, "Age", "Okay, tell me")
    await ask(talk, "9", "Got it!")
    await press(talk, "Done", "add a parent or a child")
    await press(talk, "Show data", "Ada")
    await press(talk, "Back", "You may choose")
    await press(talk, "Done", "See you around!")
    await ask(talk, "/start", "Family Bot", "You may choose")
    await press(talk, "Add family member", "add a parent or a child")
    await ask(talk, "/stop", "Okay, bye.")


async def inlinekeyboard(talk: Talk) -> None:
    await ask(talk, "/start", "Please choose")
    await press(talk, "Option 2", "Selected option: 2")


async def inlinekeyboard2(talk: Talk) -> None:
    await ask(talk, "/start", "Start handler")
    await press(talk, "2", "Second")
    await press(talk, "1", "First")
    await press(talk, "4", "Fourth")
    await press(talk, "3", "Third")
    await press(talk, "Yes, let's do it again!", "Start handler")
    await press(talk, "2", "Second")
    await press(talk, "3", "Third")
    await press(talk, "Nah, I've had enough ...", "See you next time")


async def timerbot(talk: Talk) -> None:
    await ask(talk, "/start", "/set")
    await ask(talk, "/unset", "no active timer")
    await ask(talk, "/set 600", "successfully set")
    await ask(talk, "/set 1", "Old one was removed", "Beep! 1.0 seconds")
    await ask(talk, "/set 600", "successfully set")
    await ask(talk, "/unset", "cancelled")


async def pollbot(talk: Talk) -> None:
    await ask(talk, "/start", "/poll")
    await talk.say("/poll")
    await talk.hears("")
    poll = await newest_poll(talk)
    for user, option in ((talk.user, 0), (talk.user + 1, 2), (talk.user + 2, 3)):
        person = {"id": user, "is_bot": False, "first_name": f"User {user}"}
        answer = {"poll_id": poll, "user": person, "option_ids": [option], "option_persistent_ids": [str(option)]}
        await talk.update("poll_answer", answer)
        await hears(talk, ("Good", "Really good", "Fantastic", "Great")[option])
    await ask(talk, "/preview", "Press the button")
    await ask(talk, "/help", "/quiz")


async def deeplinking(talk: Talk) -> None:
    await ask(talk, "/start", "check-this-out")
    await ask(talk, "/start check-this-out", "hidden functionality")
    await ask(talk, "/start so-cool", "deep")
    await ask(talk, "/start using-entities-here", "InlineKeyboardButtons")
    await talk.press("Like this!")
    await ask(talk, "/start using-keyboard-here", "as deep as it gets")


async def arbitrarycallbackdatabot(talk: Talk) -> None:
    await ask(talk, "/start", "Please choose")
    await press(talk, "3", "[3]")
    await press(talk, "1", "[3, 1]")
    await press(talk, "5", "[3, 1, 5]")
    await ask(talk, "/help", "/clear")


async def contexttypesbot(talk: Talk) -> None:
    await ask(talk, "/start", "0")
    await press(talk, "Click me!", "1")
    await press(talk, "Click me!", "2")
    await ask(talk, "/print_users", str(talk.user))


async def chatmemberbot(talk: Talk) -> None:
    await talk.update("my_chat_member", change_of_member(talk, -300 - talk.chat, "left", "member"))
    await ask(talk, "hello", "Welcome")
    await ask(talk, "/show_chats", str(-300 - talk.chat))
    await talk.update("chat_member", change_of_member(talk, talk.chat, "left", "member"))
    await hears(talk, "was added by")


async def errorhandlerbot(talk: Talk) -> None:
    developer = Talk(talk.stack, DEVELOPER)
    await ask(talk, "/start", str(talk.chat))
    await talk.say("/bad_command")
    await hears(developer, "An exception was raised")
    await developer.hears_nothing_more()


SCRIPTS: dict[str, Script] = {
    script.__name__: script
    for script in (
        echobot,
        conversationbot,
        conversationbot2,
        nestedconversationbot,
        persistentconversationbot,
        inlinekeyboard,
        inlinekeyboard2,
        timerbot,
        pollbot,
        deeplinking,
        arbitrarycallbackdatabot,
        contexttypesbot,
        chatmemberbot,
        errorhandlerbot,
    )
}


async def hold(name: str, examples: Path) -> None:
    """Both conversations of one example. Raises AssertionError where it says something else."""
    with tempfile.TemporaryDirectory(prefix="ptb-example-") as directory:
        server = Server(Path(directory))
        server.start()
        stack = Stack(Path(directory), server)
        try:
            await stack.start_telegram()
            await stack.start_bot(
                BOT_APP="tests.ptb_suite.example_app:setup",
                EXAMPLE=str(examples / f"{name}.py"),
                EXAMPLE_DEVELOPER=str(DEVELOPER),
                ALLOWED_UPDATES="message,callback_query,poll,poll_answer,my_chat_member,chat_member",
            )
            for talk in (Talk(stack, 1001), Talk(stack, 2002, kill_at=3)):
                if talk.chat == 2002 and name == "errorhandlerbot":  # its developer hears of both
                    continue
                await talk.open()
                await SCRIPTS[name](talk)
                await talk.hears_nothing_more()
        finally:
            await asyncio.to_thread(stack.close)
            server.stop()


async def main(names: list[str]) -> int:
    failed = 0
    with tempfile.TemporaryDirectory(prefix="ptb-examples-") as directory:
        examples = fetch(Path(directory)) / "examples"
        for name in names or SCRIPTS:
            try:
                await hold(name, examples)
            except AssertionError as error:
                failed += 1
                print(f"{name}: {str(error)[:600]}", flush=True)
            else:
                print(f"{name}: ok", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
