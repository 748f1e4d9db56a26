"""What FreeSWITCH servers carry: links, channels, applications at work on them."""
