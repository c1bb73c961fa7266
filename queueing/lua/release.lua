-- release: the message stays its lane's head, for `delay` ms.
-- reason: '' when nothing was tried; counts: 1 if it was an attempt that counts; scope: what has to wait, and may be at
-- fault: message, chat, bot, or receiver.
local function release(lane, lease, delay, counts, scope, reason, error)
  local bot, priority, attempts = bot_of_lane(lane), lease.priority, nil
  if reason ~= '' then
    local till = now + delay
    if scope == 'receiver' then
      if note_failure(bot, lane) then counts, till = 0, 0 end
    elseif scope == 'chat' then
      note_answer(bot)
      note_flood(bot, lane, till)
    elseif scope == 'bot' then
      note_answer(bot)
      pause(bot, till, reason)
    end
    attempts = note_try(priority, lane, { counts = counts, till = till, reason = reason, error = error })
  end
  end_probe(bot, lane)
  local message = head(priority, lane)
  if message.tracked then
    if attempts then
      set_status(message.id, OPEN_STATUS_MS, 'status', 'retrying', 'attempts', attempts, 'error', error)
    else
      set_status(message.id, OPEN_STATUS_MS, 'status', 'pending')
    end
  end
  place(lane, now)
end
