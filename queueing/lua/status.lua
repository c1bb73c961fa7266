-- The status of a tracked message: fields in pairs. ttl: ms.
local function set_status(id, ttl, ...)
  redis.call('HSET', status_key(id), ...)
  redis.call('PEXPIRE', status_key(id), ttl)
end

-- A message that has not ended keeps its status for this long, whatever the setting for those that have.
local OPEN_STATUS_MS = 30 * 24 * 3600 * 1000

-- Of a message that comes in. send_at: ms, 0 for now.
local function open_status(id, send_at, ...)
  local later = math.max(0, send_at - wall)
  set_status(id, OPEN_STATUS_MS + math.ceil(later), 'status', 'pending', ...)
  if later > 0 then redis.call('HSET', status_key(id), 'send_at', string.format('%.0f', send_at)) end
end
