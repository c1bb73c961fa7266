#!lua flags=allow-oom
-- claim: one exchange of a process with the queue. Settles, drains the front door, and leases from lanes that are eligible.
--
-- KEYS  1 front door
-- ARGV  1 incarnation   2 call number   3 lease, ms   4 heartbeat, ms   5 messages wanted   6 elements to drain at most
--       7 default bot or ''   8 about the process (JSON)   9 status TTL, ms   10 number of tokens held, then those tokens,
--       then six for each settlement: verb, lane, token, and its arguments:
--         ack, result, '', ''  ·  release, delay ms, counts, reason TAB error  ·  bury, reason, error, ''
-- Returns { grants, stale tokens, lost tokens, errors of unreadable elements, ms until a lane is due or -1, more }
--       a grant: { lane, token, attempts, takeovers, entry }
--
-- The same call number again returns the same grants and settles nothing twice: a reply lost on the way costs nothing.
-- allow-oom: a full server must be able to drain.
-- include: keys, lane, ack, release, bury, presence, drain

local process, call = ARGV[1], tonumber(ARGV[2])
local lease_ms, heartbeat_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local want, drain_most, default_bot, about = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local status_ttl, held_count = tonumber(ARGV[9]), tonumber(ARGV[10])
local HELD = held_key(process)

local held = redis.call('HGETALL', HELD)
local leases = leases_of(held)
local last_call = tonumber(redis.call('HGET', HELD, '#call') or 0)
if call < last_call then return redis.error_reply('OUTDATED a later call was already answered') end

forgive_silence(lease_ms, heartbeat_ms)
redis.call('ZADD', PROCESSES, now + lease_ms, process)

local function granted(lane, token)
  local attempts, takeovers = tries(lane)
  return { lane, token, attempts, takeovers, redis.call('LINDEX', lane_key(lane), 0) }
end

local function settle_one(verb, lane, a, b, c)
  if verb == 'ack' then
    ack(lane, status_ttl, a)
  elseif verb == 'release' then
    local reason, error = string.match(c, '^([^\t]*)\t(.*)$')
    release(lane, tonumber(a), reason, error, tonumber(b))
  else
    bury(lane, status_ttl, a, b)
  end
end

-- A stale token changes nothing: the lease was taken over, or settled before.
local function settle(first)
  local stale, done, sent = {}, {}, 0
  for i = first, #ARGV, 6 do
    local verb, lane, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if leases[lane] and leases[lane].token == token then
      settle_one(verb, lane, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
      leases[lane] = nil
      done[#done + 1] = lane
      if verb == 'ack' then sent = sent + 1 end
    else
      stale[#stale + 1] = token
    end
  end
  if #done > 0 then redis.call('HDEL', HELD, unpack(done)) end
  if sent > 0 then
    redis.call('HINCRBY', HELD, '#sent', sent)
    redis.call('HINCRBY', TOTALS, 'sent', sent)
  end
  return stale
end

-- Compares what the process holds by its own account with ours. → the tokens that are no longer its own
local function reconcile(first, count)
  local claimed, lost, ours = {}, {}, {}
  for i = first, first + count - 1 do claimed[ARGV[i]] = true end
  for lane, lease in pairs(leases) do
    ours[lease.token] = true
    if not claimed[lease.token] then
      -- Its grant never reached the process: nothing was sent, so it is not uncertain.
      redis.call('HDEL', HELD, lane)
      requeue(lane)
    end
  end
  for i = first, first + count - 1 do
    if not ours[ARGV[i]] then lost[#lost + 1] = ARGV[i] end
  end
  return lost
end

local function promote()
  local lanes = redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100)
  for i = 1, #lanes, 2 do
    redis.call('ZREM', DUE, lanes[i])
    redis.call('ZADD', READY, lanes[i + 1], lanes[i])
  end
end

-- The one place where a message is admitted: the limits of the next stage are checked here, before anything is written.
local function grant()
  local grants = {}
  if want == 0 then return grants end
  local lanes = redis.call('ZPOPMIN', READY, want)
  if #lanes == 0 then return grants end
  local fence = redis.call('HINCRBY', TOTALS, 'fence', #lanes / 2)
  for i = 1, #lanes, 2 do
    local lane, token = lanes[i], string.format('%.0f', fence - (i - 1) / 2)
    redis.call('HSET', HELD, lane, token .. ' ' .. call)
    grants[#grants + 1] = granted(lane, token)
    local message = parse(grants[#grants][5])
    if message.tracked then set_status(message.id, OPEN_STATUS_MS, 'status', 'sending') end
  end
  return grants
end

-- A process that leaves with its hands full may have swallowed the bell of what is still ready: it wakes one that waits.
local function pass_the_bell(grants)
  if want > #grants then
    redis.call('SADD', IDLE, process)
    return
  end
  redis.call('SREM', IDLE, process)
  if redis.call('ZCARD', READY) > 0 and redis.call('SPOP', IDLE) and redis.call('LLEN', FRONT) == 0 then
    redis.call('RPUSH', FRONT, BELL)
  end
end

local grants, stale, lost, errors = {}, {}, {}, {}
if call == last_call then
  for lane, lease in pairs(leases) do
    if lease.call == call then grants[#grants + 1] = granted(lane, lease.token) end
  end
else
  redis.call('HSET', HELD, '#call', call, '#about', about)
  stale = settle(11 + held_count)
  lost = reconcile(11, held_count)
  errors = drain(drain_most, default_bot)
  promote()
  grants = grant()
  pass_the_bell(grants)
end

local next_due = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
local more = redis.call('LLEN', FRONT) + redis.call('LLEN', HANDOFF)
return { grants, stale, lost, errors, next_due and math.max(0, next_due - now) or -1, more }
