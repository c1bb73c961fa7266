"""Bots of the shapes that PTB's own examples have, written for one process, hold their conversations on six: whichever
process an update falls to, and when one of them is killed in the middle."""

from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.talk import Talk

Script = Callable[[Talk], Awaitable[None]]


async def echo(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("Welcome, .*!")
    await talk.say("/help")
    await talk.hears("I repeat what you write.")
    for number in range(10):
        await talk.say(f"word {number}")
    await talk.hears(*[f"word {number}" for number in range(10)])


async def interview(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("Which pet do you have.")
    await talk.say("Snail")
    await talk.hears("A snail.*")
    await talk.say("/skip")
    await talk.hears("No picture, then.*")
    await talk.show(location={"latitude": 52.5, "longitude": 13.4})
    await talk.hears(r"At 52\.5, 13\.4\. Tell me its story\.")
    await talk.say("It is slow.")
    await talk.hears("Thank you. I heard: It is slow.")
    await talk.say("/start")
    await talk.hears("Which pet do you have.")
    await talk.say("/cancel")
    await talk.hears("Bye.")


async def facts(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("I know nothing.*")
    for question, answer in (("Age", "7"), ("Colour", "blue"), ("Age", "8")):
        await talk.say(question)
        await talk.hears(f"Your {question.lower()}.")
        await talk.say(answer)
        await talk.hears(f"So I know age: .*{answer}.*")
    await talk.say("Done")
    await talk.hears("In the end: age: 8, colour: blue.")
    await talk.say("/start")
    await talk.hears("I know age: 8, colour: blue.*")


async def persistent(talk: Talk) -> None:
    await facts(talk)
    await talk.say("/show")
    await talk.hears("You told me age: 8, colour: blue.")


async def nested(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("The family has 0 members.")
    await talk.press("Add")
    await talk.hears("Whom.")
    await talk.press("Child")
    await talk.hears("The child's.")
    await talk.press("Name")
    await talk.hears("The name, please.")
    await talk.say("Ada")
    await talk.hears("The child has 1 features.")
    await talk.press("Age")
    await talk.hears("The age, please.")
    await talk.say("9")
    await talk.hears("The child has 2 features.")
    await talk.press("Back")
    await talk.hears("The family has 1 members.")
    await talk.press("Show")
    await talk.hears(r"The family: child Ada \(9\)\.")
    await talk.press("Back")
    await talk.hears("The family has 1 members.")
    await talk.press("Finish")
    await talk.hears("Finished.")


async def keyboard(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("Which.")
    await talk.press("Blue")
    await talk.hears("It is blue.")


async def rounds(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("Round one: choose.")
    await talk.press("2")
    await talk.hears("You took 2. Another round.")
    await talk.press("Again")
    await talk.hears("Round one again: choose.")
    await talk.press("1")
    await talk.hears("You took 1. Another round.")
    await talk.press("Enough")
    await talk.hears("See you next time.")
    await talk.say("/dice")
    await talk.hears("Up or down.")
    await talk.press("up")
    await talk.hears("One up.")
    await talk.press("up")
    await talk.hears("Two up.")
    await talk.press("down")
    await talk.hears("All the way down.")


async def timer(talk: Talk) -> None:
    await talk.say("/unset")
    await talk.hears("There is no alarm.")
    await talk.say("/set 600")
    await talk.hears("Set.")
    await talk.say("/set 0.5")
    await talk.hears("Set anew.", r"Ring! 0\.5 s are over\.")
    await talk.say("/set 600")
    await talk.hears("Set.")
    await talk.say("/unset")
    await talk.hears("Taken back.")
    await talk.say("/ticks")
    await talk.hears("Three ticks follow.", "Tick 1.", "Tick 2.", "Tick 3.")
    await talk.say("/wait")
    await talk.hears("You have a second.")
    await talk.hears("Too late.")
    await talk.say("/wait")
    await talk.hears("You have a second.")
    await talk.say("Here!")
    await talk.hears("In time.")


async def poll(talk: Talk) -> None:
    await talk.say("/poll")
    await talk.hears("")
    poll = await newest_poll(talk)
    for user, option in ((talk.user, 0), (talk.user + 1, 2)):
        person = {"id": user, "is_bot": False, "first_name": f"User {user}"}
        answer = {"poll_id": poll, "user": person, "option_ids": [option], "option_persistent_ids": [f"option{option}"]}
        await talk.update("poll_answer", answer)
        await talk.hears(f"User {user} feels {('Fine', 'So so', 'Bad')[option]}.")
    await talk.hears("The poll is closed.")
    await talk.say("/quiz")
    await talk.hears("")
    await talk.stack.drained()  # a vote comes when the handler has noted which poll it is
    options = [
        {"text": text, "voter_count": count, "persistent_id": text} for text, count in (("1", 1), ("2", 1), ("20", 0))
    ]
    content = {"id": await newest_poll(talk), "question": "?", "options": options, "total_voter_count": 2}
    kind = {"is_closed": False, "is_anonymous": True, "type": "quiz", "allows_multiple_answers": False}
    kind |= {"allows_revoting": False, "members_only": False}
    await talk.update("poll", content | kind)
    await talk.hears("The quiz is over.")


async def newest_poll(talk: Talk) -> str:
    entries = await talk.stack.get(f"/playground/timeline?chat={talk.chat}", talk.stack.telegram)
    return [str(entry["message"]["poll"]["id"]) for entry in entries if "poll" in entry["message"]][-1]


async def deeplink(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears(r"Go on at https://t\.me/\w+\?start=one")
    await talk.say("/start one")
    await talk.hears("The first door.")
    await talk.say("/start two-of-three")
    await talk.hears("The second door.")
    await talk.press("Last")
    await talk.say("/start three")
    await talk.hears("You are there. Your word was three.")


async def basket(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("Your basket is empty.")
    for number, fruit in enumerate(("Pear", "Plum", "Pear"), 1):
        await talk.press(fruit)
        await talk.hears(f"In your basket: {', '.join(('Pear', 'Plum', 'Pear')[:number])}.")


async def contexts(talk: Talk) -> None:
    await talk.say("/start")
    await talk.hears("Clicked 0 times.")
    for number in (1, 2, 3):
        await talk.press("Click")
        await talk.hears(f"Clicked {number} times.")
    await talk.say("/start")
    await talk.hears("Clicked 0 times.")
    await talk.press("Click")
    await talk.hears("Clicked 1 times.")
    await talk.say("/users")
    await talk.hears(f"Users: {talk.user}.")


async def members(talk: Talk) -> None:
    for chat in (talk.user, -300):
        await talk.update("my_chat_member", change_of_member(talk, chat, "left", "member"))
    await talk.say("/show")
    await talk.hears(rf"Users: \[{talk.user}\]. Groups: \[-300\].")
    await talk.update("my_chat_member", change_of_member(talk, -300, "member", "kicked"))
    await talk.say("/show")
    await talk.hears(rf"Users: \[{talk.user}\]. Groups: \[\].")
    await talk.update("chat_member", change_of_member(talk, talk.chat, "left", "member"))
    await talk.hears(".* was added. Welcome!")
    await talk.update("chat_member", change_of_member(talk, talk.chat, "member", "left"))
    await talk.hears(".* is gone.")


def change_of_member(talk: Talk, chat: int, before: str, after: str) -> dict[str, object]:
    person = {"id": talk.user, "is_bot": False, "first_name": "A"}
    place = {"id": chat, "type": "private" if chat > 0 else "group", "title": "A chat", "first_name": "A"}
    until = {"until_date": 0}
    return {
        "chat": place,
        "from": person,
        "date": 1_700_000_000,
        "old_chat_member": {"user": person, "status": before} | (until if before == "kicked" else {}),
        "new_chat_member": {"user": person, "status": after} | (until if after == "kicked" else {}),
    }


async def errors(talk: Talk) -> None:
    developer = Talk(talk.stack, 999)
    await talk.say("/start")
    await talk.hears("Send <?.*>?/bad.* to have me fail.")
    await talk.say("/bad")
    await developer.hears(f"(?s)In chat {talk.chat}: .*wrong_method_name.*")
    await talk.stack.fault(kind="chat_not_found", chat=404)
    await talk.say("/nobody")
    await talk.hears("I asked.")
    await developer.hears(f"(?s)In chat {talk.chat}: .*[Cc]hat not found.*")
    await developer.hears_nothing_more()


SCRIPTS: list[Script] = [
    echo,
    interview,
    facts,
    persistent,
    nested,
    keyboard,
    rounds,
    timer,
    poll,
    deeplink,
    basket,
    contexts,
    members,
    errors,
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_a_bot_for_one_process_talks_from_six(stack: Stack, script: Script) -> None:
    """First undisturbed, then, in another chat, with a process that dies in the middle."""
    await stack.start_bot(
        BOT_APP=f"tests.e2e.bots.{script.__name__}:setup",
        ALLOWED_UPDATES="message,callback_query,poll,poll_answer,my_chat_member,chat_member",
    )
    talk = Talk(stack, 1001)
    await talk.open()
    await script(talk)
    await talk.hears_nothing_more()
    if script in (contexts, members, errors):  # what they say is of all chats together
        return
    broken = Talk(stack, 1002, kill_at=2)
    await broken.open()
    await script(broken)
    assert broken.killed
