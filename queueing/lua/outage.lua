-- The receiver's own troubles: refusals and silences that are not the fault of a message, nor of a chat.

local outage_of, note_answer, note_failure, note_probe, end_probe, note_flood
do -- a script has room for 200 local names
  local OUTAGE_CHATS = 3       -- distinct chats that fail in a row, nothing getting through between them
  local OUTAGE_FIRST_MS = 1000 -- the first pause; each probe that fails doubles it
  local OUTAGE_MOST_MS = 30000
  local PROBE_MS = 20000       -- no second probe for so long, if the first is never heard of again
  local FLOOD_CHATS = 3        -- distinct chats refused within FLOOD_WITHIN_MS, with deadlines as close to each other
  local FLOOD_WITHIN_MS = 1000

  local any_outage = any_rare and redis.call('EXISTS', OUTAGES) == 1
  local answered = {}

  -- → level (0: no outage), the time of the next probe
  function outage_of(bot)
    local kept = any_outage and redis.call('HGET', OUTAGES, bot)
    if not kept then return 0, 0 end
    local level, till = string.match(kept, '^(%d+) (%d+)$')
    return tonumber(level), tonumber(till)
  end

  local function set_outage(bot, level, till)
    redis.call('HSET', OUTAGES, bot, string.format('%d %.0f', level, till))
    wake_bot(bot, till)
    any_outage = true
  end

  -- The receiver answered for this bot, whatever it said: there is no outage.
  function note_answer(bot)
    if answered[bot] then return end
    answered[bot] = true
    redis.call('DEL', failing_key(bot))
    if outage_of(bot) > 0 then
      redis.call('HDEL', OUTAGES, bot, bot .. ' probe')
      wake_bot(bot, now)
    end
  end

  -- A send that failed as in an outage. → whether it is one: then the bot is paused, and no attempt is spent.
  function note_failure(bot, lane)
    answered[bot] = nil
    redis.call('HSET', failing_key(bot), lane, now)
    redis.call('PEXPIRE', failing_key(bot), 60000)
    local level, till = outage_of(bot)
    if level == 0 and redis.call('HLEN', failing_key(bot)) < OUTAGE_CHATS then return false end
    -- Others that were under way when it began say nothing new; a failed probe does.
    if level == 0 or redis.call('HGET', OUTAGES, bot .. ' probe') == lane then
      level = level + 1
      till = now + math.min(OUTAGE_MOST_MS, OUTAGE_FIRST_MS * 2 ^ (level - 1))
      redis.call('HDEL', OUTAGES, bot .. ' probe')
      set_outage(bot, level, till)
    end
    return true
  end

  -- A grant while there is an outage is its probe: the only one until it is heard of.
  function note_probe(bot, lane)
    local level = outage_of(bot)
    if level == 0 then return end
    redis.call('HSET', OUTAGES, bot .. ' probe', lane)
    set_outage(bot, level, now + PROBE_MS)
  end

  -- A lane's turn is over. If it was the probe, and nothing was heard of it, another may go out at once.
  function end_probe(bot, lane)
    if not any_outage or redis.call('HGET', OUTAGES, bot .. ' probe') ~= lane then return end
    redis.call('HDEL', OUTAGES, bot .. ' probe')
    local level = outage_of(bot)
    set_outage(bot, level, now)
  end

  -- A chat was told to wait until `till`. Two flooded chats are two; three at once are the bot.
  function note_flood(bot, lane, till)
    pause(lane, till, 'flood')
    local key = floods_key(bot)
    redis.call('HSET', key, lane, string.format('%.0f %.0f', now, till))
    redis.call('PEXPIRE', key, FLOOD_WITHIN_MS)
    local alike, latest = 0, till
    local floods = redis.call('HGETALL', key)
    for i = 1, #floods, 2 do
      local told, other = string.match(floods[i + 1], '^(%d+) (%d+)$')
      other = tonumber(other)
      if now - told >= FLOOD_WITHIN_MS then
        redis.call('HDEL', key, floods[i])
      elseif math.abs(other - till) <= FLOOD_WITHIN_MS then
        alike, latest = alike + 1, math.max(latest, other)
      end
    end
    if alike >= FLOOD_CHATS then pause(bot, latest, 'flood') end
  end
end
