-- ack: the message is delivered and leaves its lane. result: JSON text or ''.
local function ack(lane, priority, status_ttl, result)
  local message = remove_head(priority, lane, 'sent', result)
  if message.tracked then
    set_status(message.id, status_ttl, 'status', 'sent', 'sent_at', wall, 'result', result)
  end
  note_answer(bot_of_lane(lane))
  count('sent', 1)
  place_again(lane, now, priority)
end
