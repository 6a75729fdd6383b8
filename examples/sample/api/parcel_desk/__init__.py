"""The parcel desk: a small API that Switchyard's tests and readers release again and again."""
