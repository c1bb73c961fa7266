-- release: the message stays its lane's head and is looked at again after `delay` ms.
-- reason, error: '' when nothing was tried; counts: 1 if it was an attempt that counts.
local function release(lane, delay, reason, error, counts)
  local attempts = reason ~= '' and note_try(lane, counts, 0, reason, error)
  local message = head(lane)
  if message.tracked then
    if attempts then
      set_status(message.id, OPEN_STATUS_MS, 'status', 'retrying', 'attempts', attempts, 'error', error)
    else
      set_status(message.id, OPEN_STATUS_MS, 'status', 'pending')
    end
  end
  if delay > 0 then
    redis.call('ZADD', DUE, now + delay, lane)
  else
    requeue(lane)
  end
end
