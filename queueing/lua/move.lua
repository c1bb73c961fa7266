-- move: nothing was delivered; the message stays in its place of a lane that is from now on that of another chat.
-- It costs no attempt, unless that chat is said to have moved here: then it would go to and fro for ever.
local function move(lane, lease, chat, error)
  local bot, priority = bot_of_lane(lane), lease.priority
  local other = bot .. ':' .. chat
  local try = { reason = 'migrated', error = error }
  if canonical(other) == lane then try.counts, try.till = 1, now + 1000 end
  if lease.written then note_answer(bot) end
  end_probe(bot, lane)
  local attempts = note_try(priority, lane, try)
  local message = head(priority, lane)
  if message.tracked then
    set_status(message.id, OPEN_STATUS_MS, 'status', 'retrying', 'attempts', attempts, 'error', error)
  end
  alias(lane, other)
  place(lane, now)
end
