-- ack: the message is delivered and leaves its lane. result: JSON text or ''.
local function ack(lane, status_ttl, result)
  local message = remove_head(lane)
  if message.tracked then
    set_status(message.id, status_ttl, 'status', 'sent', 'sent_at', now, 'result', result)
  end
  redis.call('HINCRBY', TOTALS, 'laned', -1)
  requeue(lane)
end
