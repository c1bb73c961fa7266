-- hold: nobody knows whether it was delivered. It leaves its lane, which goes on, and is a dead letter until a person has
-- it sent again or forgets it.
local function hold_head(lane, priority, error)
  bury_head(lane, priority, OPEN_STATUS_MS, 'uncertain', error, 'uncertain')
end

-- scope: what may be at fault, as in release.
local function hold(lane, priority, error, scope)
  local bot = bot_of_lane(lane)
  if scope == 'receiver' then note_failure(bot, lane) else note_answer(bot) end
  end_probe(bot, lane)
  hold_head(lane, priority, error)
  place(lane, now)
end

-- Whether a message that says nothing itself is held in doubt: the default is resend or hold.
local function is_to_be_held(message, default)
  return message.held or (default == 'hold' and not message.resent)
end
