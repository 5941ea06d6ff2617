"""What the pages in the browser share: `cells` for what people decide, `server` for one person, the frame of a page."""
