/** How often to ask. Pure. */

/**
 * Return the wait before the same is asked again. What takes the daemon long is asked seldom: the page takes a
 * twentieth of its time at most.
 */
export const pause = (tookMs, { least, most }) => Math.min(most, Math.max(least, tookMs * 20));
