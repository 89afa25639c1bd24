package audit

// giveUpReserve frees the held-back disk space for the last entries and takes
// as much of it as it can for the active segment.
func (w *writer) giveUpReserve(cause error) {
	if w.emergency {
		return
	}
	w.emergency = true
	w.problem("the disk is full; only denials and events are recorded, in the reserve", cause)
	if err := w.reserve.free(); err != nil {
		w.l.options.Logger.Error("audit log: the reserve cannot be freed", "error", err)
	}
	for n := w.reserve.size; n >= lastSpace; n /= 2 {
		if err := w.file.Reserve(w.off, n); err == nil {
			w.reserved = max(w.reserved, w.off+n)
			return
		}
	}
}

// takeReserveBack ends the emergency when the disk has room for the reserve
// and for the entries ahead.
func (w *writer) takeReserveBack() {
	if err := w.reserve.take(); err != nil {
		return
	}
	if !w.noAhead {
		if err := w.file.Reserve(w.off, w.l.options.Ahead); err != nil {
			// The reserve would be given up again at once.
			w.giveBack()
			return
		}
		w.reserved = max(w.reserved, w.off+w.l.options.Ahead)
	}
	w.emergency = false
	w.l.options.Logger.Info("audit log: the disk has space again", "segment", w.path)
	w.event(EventRepaired, "the disk has space again")
}

func (w *writer) giveBack() {
	if err := w.reserve.free(); err != nil {
		w.l.options.Logger.Error("audit log: the reserve cannot be freed", "error", err)
	}
}
