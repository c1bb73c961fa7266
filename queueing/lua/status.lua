-- The status of a tracked message: fields in pairs. ttl: ms.
local function set_status(id, ttl, ...)
  redis.call('HSET', status_key(id), ...)
  redis.call('PEXPIRE', status_key(id), ttl)
end

-- A message that has not ended keeps its status for this long, whatever the setting for those that have.
local OPEN_STATUS_MS = 30 * 24 * 3600 * 1000
