#!lua flags=allow-oom
-- claim: one exchange of a process with the queue. Settles, drains the doors, and leases from lanes that are eligible.
--
-- KEYS  1 front door
-- ARGV  1 incarnation   2 call number   3 lease, ms   4 heartbeat, ms   5 messages wanted   6 elements to drain at most
--       7 default bot or ''   8 about the process (JSON)   9 status TTL, ms   10 limits, see limits.lua
--       11 the process's own clock, ms   12 default ttl, ms, or ''   13 number of tokens held
--       14 messages wanted beyond those, to be at hand   15 of the tokens held, those at hand, then the tokens held,
--         then nine for each settlement: verb, lane, token, ms from the grant to the writing or '' if nothing was written,
--         and (padded with '')
--         ack, result, chat or ''  ·  release, delay ms, counts, scope, reason, error  ·  bury, reason, error, scope
--         hold, error, scope  ·  move, chat, error
-- Returns { grants, stale tokens, lost tokens, reason and error of each that was buried, ms until something is due or -1,
--           elements at the doors, tokens whose burial became a release, ms by which the clock jumped,
--           how often something had to wait for the limit of: a chat, a group, a bot }
--       grants: lane, token, attempts, takeovers, entry, and results of its parents or '', of each
--
-- The same call number again returns the same grants and settles nothing twice: a reply lost on the way costs nothing.
-- allow-oom: a full server must be able to drain.
-- include: keys, clock, status, dedup, aliases, limits, outage, open, parents, lane, presence, names, merge, ack, release, bury, hold, move, element, drain, turn, grant

local process, call = ARGV[1], tonumber(ARGV[2])
local lease_ms, heartbeat_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local want = tonumber(ARGV[5])
local status_ttl, held_count = tonumber(ARGV[9]), tonumber(ARGV[13])
local HELD = held_key(process)
read_limits(ARGV[10])
default_ttl = tonumber(ARGV[12])

local held = redis.call('HGETALL', HELD)
local leases, about_us = leases_of(held)
local alone = about_us['#alone']
local last_call = tonumber(about_us['#call'] or 0)
if call < last_call then return redis.error_reply('OUTDATED a later call was already answered') end

local jumped = keep_time(HELD, tonumber(ARGV[11]))
forgive_silence(lease_ms, heartbeat_ms)
redis.call('ZADD', PROCESSES, now + lease_ms, process)

local kept = {}

local function settle_one(verb, lane, lease, a, b, c, d, e)
  local priority = lease.priority
  if verb == 'ack' then
    ack(lane, priority, status_ttl, a)
    if b ~= '' then alias(lane, bot_of_lane(lane) .. ':' .. b) end
  elseif verb == 'release' then
    release(lane, lease, tonumber(a), tonumber(b), c, d, e)
  elseif verb == 'hold' then
    hold(lane, priority, a, b)
  elseif verb == 'move' then
    move(lane, lease, a, b)
  elseif c == 'receiver' and note_failure(bot_of_lane(lane), lane) then
    -- Its attempts ran out in an outage: that is not its fault.
    kept[#kept + 1] = lease.token
    release(lane, lease, 0, 0, 'message', 'outage', b)
  else
    if lease.written and c ~= 'receiver' then note_answer(bot_of_lane(lane)) end
    end_probe(bot_of_lane(lane), lane)
    bury(lane, priority, status_ttl, a, b)
  end
end

local function note_departure(lane, lease, after)
  lease.written = after ~= ''
  if lease.written then
    local at = lease.granted + after
    count_departure_of_chat(lane, at)
    correct_departure(lease.account, lease.token, at)
  else
    take_back_departure(lease.account, lease.token)
  end
end

-- One that ran alone in this process does not any more.
local function end_alone(lane)
  if lane ~= alone then return end
  redis.call('HDEL', HELD, '#alone')
  alone = nil
end

-- A stale token changes nothing: the lease was taken over, or settled before.
local function settle(first)
  local stale, done, sent = {}, {}, 0
  gather_ready()
  for i = first, #ARGV, 9 do
    local verb, lane, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local lease = leases[lane]
    if lease and lease.token == token then
      note_departure(lane, lease, ARGV[i + 3])
      settle_one(verb, lane, lease, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8])
      leases[lane] = nil
      end_alone(lane)
      done[#done + 1] = lane
      if verb == 'ack' then sent = sent + 1 end
    else
      stale[#stale + 1] = token
    end
  end
  put_ready()
  if #done > 0 then redis.call('HDEL', HELD, unpack(done)) end
  look_earlier()
  if sent > 0 then
    leased[1], leased[2] = '#sent', string.format('%.0f', (about_us['#sent'] or 0) + sent)
  end
  return stale
end

-- Compares what the process holds by its own account with ours. → the tokens that are no longer its own
local function reconcile(first)
  local claimed, lost, ours = {}, {}, {}
  for i = first, first + held_count - 1 do claimed[ARGV[i]] = true end
  for lane, lease in pairs(leases) do
    ours[lease.token] = true
    if not claimed[lease.token] then
      -- Its grant never reached the process: nothing was sent, so it is not uncertain.
      redis.call('HDEL', HELD, lane)
      leases[lane] = nil
      end_alone(lane)
      take_back_departure(lease.account, lease.token)
      give_back(lane, lease)
    end
  end
  for i = first, first + held_count - 1 do
    if not ours[ARGV[i]] then lost[#lost + 1] = ARGV[i] end
  end
  return lost
end

-- A process that leaves with its hands full may have swallowed the bell of what is still ready: it wakes one that waits.
-- So does one that may take nothing beside a suspect, or no more of what is left in turn, which is bulk or of one bot: it
-- would be the one that looks, and find nothing for itself.
local function pass_the_bell(again)
  local _, many = granted()
  if want > many and (again or again == false and redis.call('EXISTS', BOTS) == 0) then
    redis.call('SADD', IDLE, process)
    return
  end
  if redis.call('EXISTS', IDLE) == 0 then return end
  redis.call('SREM', IDLE, process)
  if redis.call('EXISTS', BOTS) == 1 and redis.call('SPOP', IDLE) and redis.call('LLEN', FRONT) == 0 then
    redis.call('RPUSH', FRONT, BELL)
  end
end

local stale, lost, buried, again, merge_again = {}, {}, {}, false, false

-- → whether there was more to look at; nil: it may take nothing else for now
local function grant_up_to(most)
  -- A message at hand would wait for a coroutine to end, while a process that is idle could send it now.
  local ahead = tonumber(ARGV[14])
  if ahead > 0 and redis.call('EXISTS', IDLE) == 1 then ahead = 0 end
  if most + ahead == 0 then return false end
  read_hand(leases, most + held_count - ARGV[15])
  if alone and not grant_alone(alone, leases, HELD, call, status_ttl, buried) then return nil end
  return grant(most + ahead, most, leases, HELD, call, status_ttl, buried)
end

if call == last_call then
  for lane, lease in pairs(leases) do
    if lease.call == call then grant_again(lane, lease.priority, lease.token) end
  end
  if about_us['#told'] then stale, lost, buried, kept = unpack(cjson.decode(about_us['#told'])) end
else
  redis.call('HSET', HELD, '#call', call, '#about', ARGV[8], '#clock', clock_mark(ARGV[11]))
  stale = settle(16 + held_count)
  lost = reconcile(16)
  merge_again = merge_lanes()
  buried = drain(tonumber(ARGV[6]), ARGV[7])
  promote()
  again = grant_up_to(want)
  if #leased > 0 then redis.call('HSET', HELD, unpack(leased)) end
  pass_the_bell(again)
  write_counts()
  write_departures()
  -- For the same call again: who did not hear what became of a settlement would take it for done.
  if #stale + #lost + #buried + #kept > 0 then
    redis.call('HSET', HELD, '#told', cjson.encode({ stale, lost, buried, kept }))
  elseif about_us['#told'] then
    redis.call('HDEL', HELD, '#told')
  end
end

return { (granted()), stale, lost, buried, (again or merge_again) and 0 or next_due(), at_the_doors(), kept, jumped,
  limited.chat, limited.group, limited.bot }
