-- open: messages that have not ended, and that others may wait for. OPEN: id → words: "committed" first, if its work is
-- done though it was not acknowledged; "P=LANE" where it stands, once it is in a lane; LANE of each head that waits for
-- it. What came of a provisional one is kept: "=" and its result, or "!" and the state it ended in.

local open = {} -- one name: a script has room for 200
do
  local KEPT_MS = 30 * 24 * 3600 * 1000

  -- Whether a message with this id has been taken.
  function open.knows(id)
    return redis.call('HEXISTS', OPEN, id) == 1 or redis.call('EXISTS', ended_key(id)) == 1
  end

  function open.is_open(id) return redis.call('HEXISTS', OPEN, id) == 1 end

  -- From now on others may wait for it; also once more, after it was dead.
  function open.add(id)
    redis.call('HSETNX', OPEN, id, '')
    redis.call('DEL', ended_key(id))
  end

  function open.keep(id, what) redis.call('SET', ended_key(id), what, 'PX', KEPT_MS) end

  -- One that is made use of is kept for as long again.
  function open.keep_on(id) redis.call('PEXPIRE', ended_key(id), KEPT_MS) end

  -- The lanes that wait are looked at again.
  function open.wake(words)
    for word in string.gmatch(words, '%S+') do
      if string.find(word, '^[^=]*:') then redis.call('ZADD', DUE, 'XX', now, canonical(word)) end
    end
  end

  -- It comes into a lane, where those that wait for it may stand before it.
  function open.note_place(id, priority, lane)
    local words = string.gsub(redis.call('HGET', OPEN, id) or '', ' ?%l=%S+', '')
    redis.call('HSET', OPEN, id, words .. ' ' .. priority .. '=' .. lane)
    open.wake(words)
  end

  -- → the priority and the lane that it came into, as that was called then; nil: none yet
  function open.place_of(id) return string.match(redis.call('HGET', OPEN, id) or '', '(%l)=(%S+)') end

  -- Its work is done and must not be done again: whoever finds it at the head of its lane takes it out, as sent or, if
  -- it failed (the reason, a line's end, the error), as dead. That is kept where what came of it would be.
  function open.commit(id, failed)
    local words = redis.call('HGET', OPEN, id) or ''
    if string.find(words, '^committed') then return end
    if failed ~= '' then open.keep(id, '!' .. failed) end
    redis.call('HSET', OPEN, id, 'committed' .. (words ~= '' and ' ' or '') .. words)
  end

  -- → the reason and the error of a committed one that failed
  function open.failure_of(id) return string.match(redis.call('GET', ended_key(id)) or '', '^!([^\n]*)\n(.*)$') end

  function open.is_committed(id) return string.find(redis.call('HGET', OPEN, id) or '', '^committed') ~= nil end
end
