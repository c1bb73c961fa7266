"""Another kind of job: mails, in order to each domain, two in 200 ms at most, tried again while its server is busy."""

import asyncio
import smtplib
from email.message import EmailMessage

from queueing.contract import Queue
from queueing.limits import Rate, RateLimits
from queueing.message import Message
from queueing.retry import Outcome, Rejected, RetryLater, RetryPolicy, Sent, Unsent
from queueing.worker import MayWrite, Worker

LIMITS = RateLimits(chat=Rate(2, 0.2))


def mail(to: str, text: str) -> Message:
    return Message(bot="mail", chat=to.partition("@")[2].lower(), body={"to": to, "text": text})


def sending(queue: Queue, host: str, port: int) -> Worker:
    def send(message: Message, may_write: MayWrite) -> Outcome:
        content = EmailMessage()
        content["From"], content["To"] = "shop@example.org", message.body["to"]
        content.set_content(message.body["text"])
        try:
            with smtplib.SMTP(host, port, timeout=10) as server:
                if not may_write():
                    return Unsent()
                server.send_message(content)
        except smtplib.SMTPRecipientsRefused as error:
            ((code, why),) = error.recipients.values()
            return Rejected(why.decode(), "refused") if code >= 500 else RetryLater(why.decode(), "busy")
        except OSError as error:  # an SMTPException is one
            return RetryLater(str(error), "network", uncertain=True)
        return Sent()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        return await asyncio.to_thread(send, message, may_write)

    return Worker(queue, deliver, workers=10, policy=RetryPolicy(base=0.1), observe=lambda event: None)
