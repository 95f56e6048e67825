"""How requests arrive and answers leave: transports and the calls they carry."""
